"""The table of metrics: it is whole, what reads it keeps its order, and nobody keeps a list beside it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

import art_divqat
from art_divqat.api import evaluate, prepare
from art_divqat.metrics.table import AGREEMENT, METRICS, RATES, SAMPLES, Kind, compared_by, select
from art_divqat.plan.config import make_config
from art_divqat.report import budgets, evidence, tables, terminal, transfer
from art_divqat.results import comparisons, run_diff
from art_divqat.results.journal import Journal
from art_divqat.results.schema import TIMINGS, Comparison

PACKAGE = Path(art_divqat.__file__).parent
# where metrics are computed, and the table itself
COMPUTED = ("audit/cell.py", "audit/robustness.py", "metrics/__init__.py", "metrics/table.py")
NAMES = frozenset((*METRICS, *SAMPLES.values()))


def test_a_real_cell_writes_what_the_table_holds(tmp_path: Path) -> None:
    config = make_config(
        {
            "limit": 150,
            "victims": ["standard"],
            "defences": ["rounding:decimals=1"],
            "budgets": [30],
            "answers": ["soft"],
            "seeds": 1,
            "victim_recipe": {"epochs": 1},
            "thief_recipe": {"epochs": 1},
            "evasion": {"images": 10, "steps": 1, "epsilons": [0.1]},
            "jobs": 1,
            "query_pool": "in-distribution",
            "model": "lenet5",
        }
    )
    evaluate(prepare(config), tmp_path / "run", store=tmp_path / "store")
    _, lines = Journal(tmp_path / "run" / "journal.jsonl").read()
    assert lines
    for line in lines:
        assert set(line["metrics"]) == set(METRICS)
        found = {name for name in line["samples"] if "@" not in name and not name.startswith("linear_probe_")}
        assert found == set(SAMPLES.values())
        assert set(line["curves"]) <= set(METRICS)
        for name, value in line["metrics"].items():
            low, high = METRICS[name].bounds
            assert value is None or low <= value <= high, name


def test_every_row_is_consistent() -> None:
    kinds = set(get_args(Kind))
    assert kinds <= set(get_args(Comparison.model_fields["kind"].annotation))
    assert len(set(SAMPLES.values())) == len(SAMPLES)
    for name, row in METRICS.items():
        assert row.name == name
        assert row.heading
        assert row.meaning
        assert row.is_rate == (row.bounds == (0.0, 1.0)), name
        # a sample says of each image whether it counted: its mean is the rate of all of them
        assert row.sample is None or (row.is_rate and row.of_all), name
        assert set(row.compared) <= kinds, name
        # what the comparisons resample must be kept
        if set(row.compared) - {"ratio", "difference"}:
            assert row.sample is not None, name
        if "ratio" in row.compared:
            assert (row.sample is None) == (row.quotient_of is not None), name
        for part in row.quotient_of or ():
            assert part in SAMPLES, name


def test_the_order_of_columns() -> None:
    robust = ("victim_robust_accuracy", "thief_robust_accuracy", "transfer_robust_accuracy", "transfer_attack_success")
    costs = ("victim_accuracy", "defended_accuracy", "label_flip_rate", "l1_distortion", "kl_divergence", "latency_us")
    stolen = ("thief_accuracy", "agreement", "agreement_clean", "extraction_ratio")
    assert tuple(METRICS) == (*costs, *stolen, *robust)
    assert costs == evidence._COSTS
    assert robust == evidence._ROBUSTNESS
    side_by_side = ("victim_accuracy", "thief_accuracy", "agreement", "extraction_ratio", *robust)
    assert side_by_side == transfer._SIDE_BY_SIDE
    assert budgets._CURVES == ("agreement", "thief_accuracy")
    assert ("agreement", "thief_accuracy", "extraction_ratio", *robust[:3]) == tables._SUMMARISED
    assert list(terminal._VICTIM_COLUMNS.items()) == [
        ("victim_accuracy", "victim acc."),
        ("defended_accuracy", "defended acc."),
        ("label_flip_rate", "label flips"),
        ("l1_distortion", "L1"),
        ("victim_robust_accuracy", "victim rob."),
    ]
    assert list(terminal._THIEF_COLUMNS.items()) == [
        ("thief_accuracy", "thief acc."),
        ("agreement", "agree- ment"),
        ("extraction_ratio", "extr. ratio"),
        ("thief_robust_accuracy", "thief rob."),
        ("transfer_attack_success", "transf. succ."),
    ]


def test_what_is_compared_and_how() -> None:
    assert comparisons._RATIOS == ("thief_accuracy", "agreement", "agreement_clean")
    assert METRICS["extraction_ratio"].quotient_of == ("thief_accuracy", "victim_accuracy")
    assert compared_by("difference") == (
        "victim_accuracy",
        "victim_robust_accuracy",
        "thief_robust_accuracy",
        "transfer_robust_accuracy",
        "transfer_attack_success",
    )
    assert compared_by("defence_effect") == ("thief_accuracy", "agreement_clean")
    assert compared_by("query_fraction") == compared_by("best_attacker") == ("thief_accuracy", "agreement")
    assert run_diff._STOLEN == ("agreement", "thief_accuracy", "transfer_attack_success")
    assert run_diff._OWN == ("victim_accuracy", "defended_accuracy", "victim_robust_accuracy")
    assert run_diff._SAMPLED == {"agreement": "agrees", "thief_accuracy": "thief_correct"}
    assert set(TIMINGS) == {"seconds", "started", "latency_us"}


def test_rates_and_the_leading_metric() -> None:
    assert set(METRICS) - set(RATES) == {"extraction_ratio", "l1_distortion", "kl_divergence", "latency_us"}
    assert [name for name in RATES if not METRICS[name].of_all] == ["transfer_attack_success"]
    assert select(lambda metric: metric.is_rate, first=AGREEMENT)[0] == AGREEMENT


def test_the_glossary_has_every_metric() -> None:
    # in a cell of a Markdown table a bar is written with a backslash
    page = (PACKAGE.parent / "docs" / "glossary.md").read_text(encoding="utf-8").replace("\\|", "|")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{row.name}` | {row.heading} | {row.meaning} | {row.unit} |" for row in METRICS.values()]


def test_the_table_imports_no_torch() -> None:
    code = "import art_divqat.metrics.table, sys; assert not {'torch', 'art'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def broken_rules(source: str) -> Iterator[tuple[int, str]]:
    """Where a module keeps names of metrics beside the table: line and what is wrong.

    A name may stand as a literal where one question is asked of one metric, such as `row.metrics["agreement"]`. Not
    allowed: a tuple, list, set or dictionary with two names of metrics or samples or more; a comparison with a name,
    which asks a name for what its row should say; a name asked of `.metrics` that has no row.
    """
    displays = (ast.Tuple, ast.List, ast.Set, ast.Dict)

    def named(display: ast.AST) -> set[str]:
        found: set[str] = set()
        for child in ast.iter_child_nodes(display):
            if isinstance(child, ast.Constant) and isinstance(child.value, str) and child.value in NAMES:
                found.add(child.value)
            elif isinstance(child, (*displays, ast.Starred)):
                found |= named(child)
        return found

    def is_metrics(node: ast.AST) -> bool:
        return isinstance(node, ast.Attribute) and node.attr == "metrics"

    def text(node: ast.AST) -> str | None:
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None

    for node in ast.walk(ast.parse(source)):
        asked: str | None = None
        if isinstance(node, displays) and len(names := named(node)) > 1:
            yield node.lineno, f"a list of {', '.join(sorted(names))}"
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops) and any(text(s) in NAMES for s in sides):
                yield node.lineno, "a comparison with the name of a metric"
            if isinstance(node.ops[0], ast.In | ast.NotIn) and is_metrics(sides[1]):
                asked = text(sides[0])
        elif isinstance(node, ast.Subscript) and is_metrics(node.value):
            asked = text(node.slice)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            asked = text(node.args[0]) if node.func.attr == "get" and is_metrics(node.func.value) else None
        if asked is not None and asked not in METRICS:
            yield node.lineno, f"{asked!r} has no row"


def test_no_other_module_lists_metrics() -> None:
    wrong = [
        f"{path}:{line}: {what}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).as_posix() not in COMPUTED
        for line, what in broken_rules(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "say it in a row of art_divqat/metrics/table.py and select it from there"


@pytest.mark.parametrize(
    ("source", "broken"),
    [
        ('for m in ("thief_accuracy", "agreement"): pass', True),
        ('X = {"agreement": "agrees"}', True),
        ('X = {("ratio", "agreement"): 1, ("ratio", "thief_accuracy"): 2}', True),
        ('X = [*("agreement",), "thief_accuracy"]', True),
        ('bounds = (0, 2) if name == "l1_distortion" else None', True),
        ('rate = row.metrics["agrement"]', True),
        ('rate = row.metrics.get("agrement")', True),
        ('known = "agrement" in row.metrics', True),
        ('rate = row.metrics["agreement"]', False),
        ('pair = row.metrics["agreement"], row.metrics.get("thief_accuracy")', False),
        ('best = view.best(*pair, "agreement")', False),
        ('key = found["ratio", "agreement"]', False),
        ("X = (AGREEMENT, THIEF_ACCURACY)", False),
    ],
)
def test_the_rule_finds_what_it_is_for(source: str, broken: bool) -> None:
    assert bool(list(broken_rules(source))) == broken
