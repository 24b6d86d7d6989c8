"""Difference of two runs: B minus A, paired by cell and by test image, from the journals alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ConfigDict

from art_divqat.errors import UserError
from art_divqat.metrics.estimator import Effect
from art_divqat.metrics.table import AGREEMENT, SAMPLES, select
from art_divqat.metrics.verdicts import judge
from art_divqat.results.comparisons import paired_difference
from art_divqat.results.effects import as_estimate
from art_divqat.results.journal import CellRecord, Group, Header, Journal, group_of
from art_divqat.results.schema import Coordinates, Estimate
from art_divqat.victims.external.settings import is_external
from art_divqat.victims.registry import is_control

# more of the first is worse for the owner of the model; more of the second is better
_STOLEN = select(lambda metric: metric.watched and metric.worse == "higher", first=AGREEMENT)
_OWN = select(lambda metric: metric.watched and metric.worse == "lower")
_SAMPLED = {name: SAMPLES[name] for name in _STOLEN if name in SAMPLES}
_YOUR_MODEL = "external"


class Change(Coordinates):
    """One metric of one group of cells: `before` in A, `after` in B, and the interval of the difference over seeds.

    `verdict` is `worse` or `better` for the owner of the model, or `cannot tell`, by Holm's correction over all changes
    of the metric: an interval may leave out 0 where the verdict does not.
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
        """Whether any metric is worse by its verdict."""
        return any(change.verdict == "worse" for change in self.changes)


def compare_runs(first: Path, second: Path) -> RunComparison:
    """B − A for every group of cells that both runs hold; one's own model counts as the same whatever its hash.

    The control of an audit is left out: it is trained here, to judge the other by.

    The intervals are those of :func:`art_divqat.results.comparisons.paired_difference`.

    :raises UserError: if a folder holds no run, the test images differ, or no cell is in both.
    """
    (header_a, records_a), (header_b, records_b) = (Journal(each / "journal.jsonl").read() for each in (first, second))
    for header, folder in ((header_a, first), (header_b, second)):
        if not isinstance(header.get("data"), dict) or "dataset" not in header["data"]:
            raise UserError(f"The journal in {folder} does not say what data it is about.")
    if header_a["data"]["dataset"].get("checksum") != header_b["data"]["dataset"].get("checksum"):
        raise UserError(f"{first} and {second} were measured on different images: only runs on the same can be paired.")
    before, after = _by_cell(header_a, records_a), _by_cell(header_b, records_b)
    shared = [key for key in after if key in before]
    if not shared:
        raise UserError(f"{first} and {second} have no cell in common: nothing can be compared.")
    groups: dict[Group, list[tuple[CellRecord, CellRecord]]] = {}
    for key in shared:
        groups.setdefault(key[0], []).append((before[key], after[key]))
    changes = _judge([found for group, pairs in groups.items() for found in _changes(group, pairs)])
    return RunComparison(changes=changes, only_in_a=len(before) - len(shared), only_in_b=len(after) - len(shared))


def _by_cell(header: Header, records: Sequence[CellRecord]) -> dict[tuple[Group, int], CellRecord]:
    """By group and seed, without the control; one's own model has one name, whatever its hash."""
    found = {}
    for record in records:
        group = group_of(record)
        if is_control(group.victim, header.get("config", {})):
            continue
        if is_external(group.victim):
            group = group._replace(victim=_YOUR_MODEL)
        found[group, record["cell"]["seed"]] = record
    return found


def _changes(group: Group, pairs: Sequence[tuple[CellRecord, CellRecord]]) -> list[tuple[Change, Effect]]:
    """Every change of a group, still to be judged, with its effect."""
    old, new = ([pair[side] for pair in pairs] for side in (0, 1))
    found = []
    for metric in (*_STOLEN, *_OWN):
        before, after = (
            [value for record in side if (value := record["metrics"].get(metric)) is not None] for side in (old, new)
        )
        if min(len(before), len(after)) < len(pairs):
            continue
        effect = paired_difference(metric, new, old)
        change = Change(
            **group._asdict(),
            n_seeds=len(pairs),
            metric=metric,
            before=fmean(before),
            after=fmean(after),
            difference=as_estimate(effect),
            verdict="cannot tell",
        )
        found.append((change, effect))
    return found


def _judge(found: Sequence[tuple[Change, Effect]]) -> list[Change]:
    """The changes with their verdicts, those of each metric tested together."""
    judged = [change for change, _ in found]
    for metric in (*_STOLEN, *_OWN):
        numbers = [n for n, (change, _) in enumerate(found) if change.metric == metric]
        bad = "higher" if metric in _STOLEN else "lower"
        for n, direction in zip(numbers, judge([found[n][1] for n in numbers], 0.0), strict=True):
            if direction != "cannot tell":
                judged[n] = judged[n].model_copy(update={"verdict": "worse" if direction == bad else "better"})
    return judged
