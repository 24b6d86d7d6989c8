"""Schema of results.json, version 1: the record of a run in one file, whose JSON schema the package publishes.

Rates are fractions in [0, 1]. `low` and `high` bound a 95 % interval and are null where nothing can be said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from art_divqat.metrics.table import select

SCHEMA_VERSION = 1
# what no two runs have in common
TIMINGS = ("seconds", "started", *select(lambda metric: metric.unit == "µs"))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Estimate(_Strict):
    """A mean and its 95 % interval."""

    mean: float
    low: float | None = None
    high: float | None = None


class CurvePoint(_Strict):
    """A rate at one radius ε, in units of [0, 1] pixels."""

    epsilon: float
    value: float


class CurveEstimate(Estimate):
    """The mean at one radius ε and its 95 % interval."""

    epsilon: float


class Coordinates(_Strict):
    """What a cell or a group of cells was about; `answers` is what the attacker used.

    An attack that asks the victim nothing has `answers` "none" and `budget` 0.
    """

    dataset: str
    victim: str
    defence: str
    attack: str
    answers: str
    budget: int


class CellResult(Coordinates):
    """One finished cell. A metric that was not measured is absent; one that has no value is null.

    `curves` holds, at the largest budget, `victim_robust_accuracy` and `thief_robust_accuracy` (the share that nothing
    within ε fooled) and `transfer_robust_accuracy` over ascending ε.
    """

    seed: int
    queries: int
    metrics: dict[str, float | None]
    details: dict[str, float] = Field(default_factory=dict)
    curves: dict[str, list[CurvePoint]] = Field(default_factory=dict)
    seconds: float


class SummaryRow(Coordinates):
    """Cells that differ only in their seed."""

    n_seeds: int
    metrics: dict[str, Estimate]
    curves: dict[str, list[CurveEstimate]] = Field(default_factory=dict)


class Comparison(Coordinates):
    """One computed comparison.

    - `ratio`, `difference`: `metric` of `victim` over, or minus, that of `baseline` at equal budget, paired by seed.
    - `curve_difference`: as `difference`, of the curve of `metric` at `epsilon` or, where that is null, of its mean
      over all radii above 0 of the curve.
    - `defence_effect`: `metric` with the defence minus without any, same victim, attack and answers, paired by seed; a
      recovery that has nothing to undo without a defence is left out there. What a defence is worth is the effect on
      its `best_attacker`.
    - `query_fraction`: queries at which `victim` reaches what `baseline` has at the full budget, over the full budget;
      `value` is null if it is not reached; `bound` is `at most` if it was reached at the smallest budget already.
    - `queries_added`: `metric` of an attack that asks the victim minus that of `baseline`, the best attack that asks
      nothing (a thief of the attacker's own images alone), same victim and defence, paired by seed. What a defence can
      take away is what the queries of its `best_attacker` added.
    - `best_attacker`: the attack and answers that give the highest `metric` against this victim and defence.

    `verdict` is `higher` or `lower` where the interval leaves out 1 (ratios, fractions) or 0 (differences), else
    `cannot tell`; null for `best_attacker`.

    In Python alone, `seeds_needed` says about how many seeds would change `cannot tell`, see
    :func:`art_divqat.metrics.verdicts.seeds_needed`; None where nothing is known of seeds.
    """

    kind: Literal[
        "ratio", "difference", "curve_difference", "defence_effect", "query_fraction", "best_attacker", "queries_added"
    ]
    metric: str
    baseline: str | None = None
    epsilon: float | None = None
    n_seeds: int
    value: Estimate | None
    verdict: Literal["higher", "lower", "cannot tell"] | None = None
    bound: Literal["exact", "at most", "not reached"] | None = None
    # version 1 of the file is without it
    seeds_needed: SkipJsonSchema[float | None] = Field(None, exclude=True)


class Flag(_Strict):
    """A reason not to trust part of the evaluation, what it means, and what to do."""

    name: str
    raised_because: str
    meaning: str
    remedy: str


class GateCondition(_Strict):
    """One `--fail-on` condition and where it was met."""

    condition: str
    failed: bool
    where: list[str] = Field(default_factory=list)


class Gate(_Strict):
    """What the conditions say together."""

    passed: bool
    conditions: list[GateCondition] = Field(default_factory=list)


class Results(_Strict):
    """A whole run."""

    schema_version: Literal[1] = 1
    tool: dict[str, str]
    environment: dict[str, Any]
    started: str
    config: dict[str, Any]
    data: dict[str, Any]
    planned: int
    cells: list[CellResult]
    summary: list[SummaryRow]
    comparisons: list[Comparison]
    flags: list[Flag] = Field(default_factory=list)
    gate: Gate = Field(default_factory=lambda: Gate(passed=True))

    @property
    def dataset(self) -> Mapping[str, Any]:
        """What was recorded of the data set; empty where nothing was."""
        recorded = self.data.get("dataset")
        return recorded if isinstance(recorded, Mapping) else {}


def results_schema() -> dict[str, Any]:
    """The JSON schema of results.json.

    >>> results_schema()["title"]
    'Results'
    """
    return Results.model_json_schema()
