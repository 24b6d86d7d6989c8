"""What changed between two runs: B minus A, paired by cell and by test image, from the journals alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from art_divqat._canonical import canonical_json
from art_divqat.errors import UserError
from art_divqat.metrics.intervals import mean_interval, paired_bootstrap
from art_divqat.metrics.table import AGREEMENT, SAMPLES, select
from art_divqat.results.comparisons import as_estimate, verdict_of
from art_divqat.results.journal import Journal
from art_divqat.results.samples import unpack
from art_divqat.results.schema import Coordinates, Estimate
from art_divqat.victims.external.settings import is_external

# more of the first is worse for the owner of the model; more of the second is better
_STOLEN = select(lambda metric: metric.watched and metric.worse == "higher", first=AGREEMENT)
_OWN = select(lambda metric: metric.watched and metric.worse == "lower")
_SAMPLED = {name: SAMPLES[name] for name in _STOLEN if name in SAMPLES}
_YOUR_MODEL = "external"


class Change(Coordinates):
    """One metric of one group of cells: `before` in A, `after` in B, and the interval of the difference over seeds.

    `verdict` is `worse` or `better` for the owner of the model where the interval leaves out 0, else `cannot tell`.
    """

    metric: str
    n_seeds: int
    before: float
    after: float
    difference: Estimate
    verdict: Literal["better", "worse", "cannot tell"]


class RunComparison(BaseModel):
    """All changes, and how much of the runs had no counterpart."""

    model_config = ConfigDict(extra="forbid")

    changes: list[Change]
    only_in_a: int
    only_in_b: int

    @property
    def got_worse(self) -> bool:
        """Whether any metric is worse beyond its interval."""
        return any(change.verdict == "worse" for change in self.changes)


def compare_runs(first: Path, second: Path) -> RunComparison:
    """B − A for every group of cells that both runs hold; one's own model counts as the same whatever its hash.

    `agreement` and `thief_accuracy`: bootstrap over seeds and test images, in pairs. The others: Student's t over the
    seeds, and no interval with one seed.

    :raises UserError: if a folder holds no run, the test images differ, or no cell is in both.
    """
    (header_a, lines_a), (header_b, lines_b) = (Journal(each / "journal.jsonl").read() for each in (first, second))
    for header, folder in ((header_a, first), (header_b, second)):
        if not isinstance(header.get("data"), dict) or "dataset" not in header["data"]:
            raise UserError(f"The journal in {folder} does not say what data it is about.")
    if header_a["data"]["dataset"].get("checksum") != header_b["data"]["dataset"].get("checksum"):
        raise UserError(f"{first} and {second} were measured on different images: only runs on the same can be paired.")
    before, after = _by_cell(lines_a), _by_cell(lines_b)
    shared = [key for key in after if key in before]
    if not shared:
        raise UserError(f"{first} and {second} have no cell in common: nothing can be compared.")
    groups: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for key in shared:
        group = canonical_json({**after[key]["cell"], "victim": _victim(after[key]), "seed": None})
        groups.setdefault(group, []).append((before[key], after[key]))
    changes = [change for pairs in groups.values() for change in _changes(pairs)]
    return RunComparison(changes=changes, only_in_a=len(before) - len(shared), only_in_b=len(after) - len(shared))


def _victim(line: dict[str, Any]) -> str:
    victim = str(line["cell"]["victim"])
    return _YOUR_MODEL if is_external(victim) else victim


def _by_cell(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {canonical_json({**line["cell"], "victim": _victim(line)}): line for line in lines}


def _changes(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[Change]:
    cell = {key: value for key, value in pairs[0][1]["cell"].items() if key != "seed"}
    common = {**cell, "victim": _victim(pairs[0][1]), "n_seeds": len(pairs)}
    found = []
    for metric in (*_STOLEN, *_OWN):
        values = [(a["metrics"].get(metric), b["metrics"].get(metric)) for a, b in pairs]
        numbers = [(float(a), float(b)) for a, b in values if a is not None and b is not None]
        if len(numbers) < len(pairs):
            continue
        if metric in _SAMPLED:
            old, new = (
                np.stack([unpack(pair[side]["samples"][_SAMPLED[metric]]) for pair in pairs]) for side in (0, 1)
            )
            if old.shape != new.shape:
                raise UserError("The two runs kept samples of different numbers of test images; they cannot be paired.")
            interval = paired_bootstrap(new, old, np.subtract)
        else:
            interval = mean_interval([b - a for a, b in numbers], (-1.0, 1.0))
        direction = verdict_of(interval, 0.0)
        bad = "higher" if metric in _STOLEN else "lower"
        found.append(
            Change(
                **common,
                metric=metric,
                before=float(np.mean([a for a, _ in numbers])),
                after=float(np.mean([b for _, b in numbers])),
                difference=as_estimate(interval),
                verdict="cannot tell" if direction == "cannot tell" else "worse" if direction == bad else "better",
            )
        )
    return found
