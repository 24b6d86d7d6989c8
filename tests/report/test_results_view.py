"""What the report says of a defence is what results.json says of it, in every committed study."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

import art_divqat.report
from art_divqat.report.text import percent, points, points_range
from art_divqat.results.build import read_results
from art_divqat.results.schema import Estimate

STUDIES = Path(__file__).parents[2] / "evaluations" / "studies"
JOURNALS = sorted(STUDIES.rglob("journal.jsonl"))
TABLE = "**Change of thief accuracy by the defence**"
# the sentence of the finding, for each verdict: of one attacker, and of the best under the defence
LEADS = {
    "lower": ("lowers the accuracy", ", lower than the"),
    "higher": ("does not protect: it raises", ", higher than the"),
    "cannot tell": ("cannot be told from zero", ", not to be told from the"),
}


def defences_of(journal: Path) -> list[str]:
    with journal.open(encoding="utf-8") as lines:
        return list(json.loads(next(lines))["entry"]["config"]["defences"])


def effects(report: str) -> dict[tuple[str, str], dict[str, str]]:
    """The cells of the table on defences, by victim and defence, then by their heading."""
    if TABLE not in report:
        return {}
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in report.partition(TABLE)[2].strip().partition("\n\n")[0].splitlines()
    )
    return {(row[0], row[1]): dict(zip(head[2:], row[2:], strict=True)) for row in rows}


def best_by_json(record: dict[str, Any], victim: str, defence: str, answers: str | None) -> dict[str, Any]:
    """The effect on the best attacker, by a reader of results.json alone."""
    rows = [row for row in record["summary"] if row["victim"] == victim]
    budgets = [{row["budget"] for row in rows if row["defence"] == name} for name in ("none", defence)]
    shared = {"victim": victim, "defence": defence, "budget": max(budgets[0] & budgets[1])}

    def of(kind: str, **more: str) -> list[dict[str, Any]]:
        requested = {**shared, **more, "kind": kind, "metric": "thief_accuracy"}
        return [c for c in record["comparisons"] if all(c[name] == value for name, value in requested.items())]

    if answers is None:
        (best,) = of("best_attacker")
    else:
        rows = [r for r in rows if all(r[name] == value for name, value in {**shared, "answers": answers}.items())]
        best = max(rows, key=lambda row: round(row["metrics"]["thief_accuracy"]["mean"], 12))
    (effect,) = of("defence_effect", attack=best["attack"], answers=best["answers"])
    return effect


def verdict_of(cell: str) -> str:
    if "cannot be told from zero" in cell:
        return "cannot tell"
    return "lower" if cell.startswith("−") else "higher"


def test_studies_with_defences_are_among_the_committed() -> None:
    assert sum(len(defences_of(journal)) > 1 for journal in JOURNALS) >= 2


@pytest.mark.parametrize("journal", JOURNALS, ids=lambda path: str(path.parent.relative_to(STUDIES)))
def test_the_committed_report_and_results_json_agree_on_every_defence(journal: Path) -> None:
    report = (journal.parent / "report.md").read_text(encoding="utf-8")
    defences, printed = defences_of(journal), effects(report)
    if defences == ["none"]:
        assert not printed
        return
    results = read_results(journal.parent)
    record = json.loads(results.model_dump_json())
    assert {defence for _, defence in printed} == set(defences) - {"none"}
    for (victim, defence), cells in printed.items():
        for heading, cell in cells.items():
            answers = None if heading == "Best thief" else heading.removeprefix("Best with ").removesuffix(" answers")
            effect = best_by_json(record, victim, defence, answers)
            assert verdict_of(cell) == effect["verdict"], (victim, defence, heading)
            value = Estimate(**effect["value"])
            assert cell.startswith(f"{points(value.mean)} ({points_range(value)}"), (victim, defence, heading)
    finding = next(line for line in report.splitlines() if re.search("defence|leaves the least", line))
    name = re.search(r"(?:Of \d+ defences|The defence) (\S+)", finding)[1]  # type: ignore[index]
    victim = re.search(r"best thief of the (\S+) victim", finding)[1]  # type: ignore[index]
    (effect,) = (
        best_by_json(record, *pair, None)
        for pair in printed
        if pair[0].partition(":")[0] == victim and pair[1].partition(":")[0] == name.partition(":")[0]
    )
    verdicts = [verdict for verdict, ways in LEADS.items() if any(way in finding for way in ways)]
    assert verdicts == [effect["verdict"]]
    best = next(
        row for row in record["summary"] if all(row[k] == effect[k] for k in ("victim", "defence", "attack", "answers"))
    )
    assert percent(best["metrics"]["thief_accuracy"]["mean"]) in finding


def test_the_report_makes_no_statistics() -> None:
    folder = Path(art_divqat.report.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            for name in names:
                assert not name.startswith(("art_divqat.metrics.intervals", "art_divqat.metrics.estimator")), path
                assert name != "art_divqat.metrics.mean_interval", path
