"""Results to report on, made from a few rates: no model is trained here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from art_divqat.attacks.extraction.registry import read_attack
from art_divqat.defences.registry import read_defence
from art_divqat.metrics.intervals import mean_interval
from art_divqat.plan.cells import Cell
from art_divqat.results.schema import TIMINGS, CellResult, Comparison, CurveEstimate, Estimate, Results, SummaryRow
from art_divqat.victims.specs import read_victim

Rates = Mapping[str, float]


def read_cell(*coordinates: Any) -> Cell:
    """The cell of coordinates as journals have them."""
    dataset, victim, defence, attack, *rest = coordinates
    return Cell(dataset, read_victim(victim), read_defence(defence), read_attack(attack), *rest)


Recipe = Callable[[str, str, str, int], Rates]


def robust_rates(victim: str, defence: str, answers: str, budget: int) -> Rates:
    """Plausible rates: the robust victim is stolen a little better, a defence hurts the soft thief only."""
    robust = victim.startswith("robust")
    thief = 0.93 - 60 / budget - (0.0 if robust else 0.06) - (0.03 if answers == "hard" else 0.0)
    if defence != "none" and answers == "soft":
        thief -= 0.4
    flips = 0.0 if defence == "none" else 0.02
    rates = {
        "victim_accuracy": 0.975 if not robust else 0.96,
        "thief_accuracy": thief - 0.02,
        "agreement": thief,
        "agreement_clean": thief,
        "extraction_ratio": (thief - 0.02) / 0.97,
        "victim_robust_accuracy": 0.55 if robust else 0.08,
        "thief_robust_accuracy": 0.21 if robust else 0.05,
        "transfer_robust_accuracy": 0.62 if robust else 0.4,
        "transfer_attack_success": 0.3 if robust else 0.7,
    }
    if defence != "none":
        rates |= {
            "defended_accuracy": rates["victim_accuracy"] - flips,
            "label_flip_rate": flips,
            "l1_distortion": 0.31,
            "kl_divergence": 0.12,
            "latency_us": 14.2,
        }
    return rates


def make_results(
    rates: Recipe = robust_rates,
    *,
    victims: Sequence[str] = ("standard", "robust:epsilon=0.2"),
    baseline: str | None = "standard",
    defences: Sequence[str] = ("none",),
    attacks: Sequence[str] = ("knockoff",),
    answers: Sequence[str] = ("soft", "hard"),
    budgets: Sequence[int] = (250, 500, 1_000),
    seeds: int = 3,
    noise: float = 0.004,
    dataset: str = "digits",
    details: Mapping[str, float] | None = None,
    **fields: Any,
) -> Results:
    """A whole run: cells with a little noise over seeds, summaries and comparisons as the audit makes them."""
    rng = np.random.default_rng(0)
    cells, summary = [], []
    for victim in victims:
        for defence in defences:
            for attack in attacks:
                for kind in answers:
                    for budget in budgets:
                        where = {
                            "dataset": dataset,
                            "victim": victim,
                            "defence": defence,
                            "attack": attack,
                            "answers": kind,
                            "budget": budget,
                        }
                        mean = rates(victim, defence, kind, budget)
                        drawn: list[dict[str, float | None]] = []
                        for seed in range(seeds):
                            values: dict[str, float | None] = {
                                k: v + noise * float(rng.standard_normal())
                                if k in ("agreement", "thief_accuracy")
                                else v
                                for k, v in mean.items()
                            }
                            drawn.append(values)
                            cells.append(
                                CellResult(
                                    **where,
                                    seed=seed,
                                    queries=budget,
                                    metrics=values,
                                    seconds=1.5,
                                    details=dict(details or {}),
                                )
                            )
                        metrics = {}
                        for name in mean:
                            interval = mean_interval([float(d[name] or 0.0) for d in drawn], None)
                            metrics[name] = Estimate(mean=interval.mean, low=interval.low, high=interval.high)
                        summary.append(SummaryRow(**where, n_seeds=seeds, metrics=metrics))
    comparisons = _compare(summary, baseline, seeds) if baseline is not None else []
    comparisons += _defence_effects(summary)
    values: dict[str, Any] = {
        "tool": {"name": "art-divqat", "version": "0.1.0"},
        "environment": {"python": "3.11.9", "torch": "2.8.0", "packages": {"numpy": "2.1.0"}},
        "started": "2026-11-24T02:30:00Z",
        "config": {
            "dataset": dataset,
            "model": "small-cnn",
            "thief_model": "small-cnn",
            "victims": list(victims),
            "attacks": list(attacks),
            "defences": list(defences),
            "query_pool": "photos",
            "budgets": list(budgets),
            "seeds": seeds,
            "epsilon": 0.2,
            "evasion": {"images": 200, "steps": 20, "autoattack": False},
        },
        "data": {"dataset": {"name": dataset, "test": 360, "sha256": "ab" * 32}, "evasion_images": 200},
        "planned": len(cells),
        **fields,
    }
    return Results(cells=cells, summary=summary, comparisons=comparisons, **values)


def _compare(summary: list[SummaryRow], baseline: str, seeds: int) -> list[Comparison]:
    def key(row: SummaryRow) -> tuple[Any, ...]:
        return (row.defence, row.attack, row.answers, row.budget)

    others = {key(row): row for row in summary if row.victim == baseline}
    full = max(row.budget for row in summary)
    found = []
    for row in summary:
        if row.victim == baseline:
            continue
        other = others[key(row)]
        where = row.model_dump(exclude={"metrics", "n_seeds", "curves"}) | {"baseline": baseline, "n_seeds": seeds}
        for metric in ("thief_accuracy", "agreement"):
            ratio = row.metrics[metric].mean / other.metrics[metric].mean
            found.append(
                comparison("ratio", metric, Estimate(mean=ratio, low=ratio - 0.03, high=ratio + 0.03), **where)
            )
        for metric in ("thief_robust_accuracy", "transfer_robust_accuracy"):
            if metric not in row.metrics:
                continue
            gap = row.metrics[metric].mean - other.metrics[metric].mean
            low, high = (None, None) if seeds == 1 else (gap - 0.2, gap + 0.2)
            found.append(comparison("difference", metric, Estimate(mean=gap, low=low, high=high), **where))
        if row.budget == full:
            for metric in ("thief_accuracy", "agreement"):
                value = Estimate(mean=0.62, low=0.51, high=0.73)
                found.append(comparison("query_fraction", metric, value, bound="exact", **where))
    return found


def _defence_effects(summary: list[SummaryRow]) -> list[Comparison]:
    """Each attack with a defence against the same one without; no interval from one seed."""
    bare = {(r.victim, r.attack, r.answers, r.budget): r for r in summary if r.defence == "none"}
    found = []
    for row in summary:
        other = bare.get((row.victim, row.attack, row.answers, row.budget))
        if row.defence == "none" or other is None:
            continue
        gap = row.metrics["thief_accuracy"].mean - other.metrics["thief_accuracy"].mean
        low, high = (None, None) if row.n_seeds == 1 else (gap - 0.03, gap + 0.03)
        where = row.model_dump(exclude={"metrics", "curves"})
        value = Estimate(mean=gap, low=low, high=high)
        found.append(comparison("defence_effect", "thief_accuracy", value, **where))
    return found


CURVE_RADII = (0.0, 0.1, 0.2, 0.3)
CURVE_RATES = {
    "victim_robust_accuracy": {"standard": (0.97, 0.6, 0.1, 0.0), "robust": (0.96, 0.8, 0.5, 0.2)},
    "thief_robust_accuracy": {"standard": (0.87, 0.3, 0.05, 0.0), "robust": (0.89, 0.4, 0.2, 0.02)},
    "transfer_robust_accuracy": {"standard": (0.87, 0.7, 0.4, 0.2), "robust": (0.89, 0.8, 0.6, 0.4)},
}


def with_curves(results: Results) -> Results:
    """The same results with curves over ε at the largest budget, and what they say of robust against standard."""
    full = max(row.budget for row in results.summary)
    summary = []
    for row in results.summary:
        kind = "robust" if row.victim.startswith("robust") else "standard"
        curves = {
            metric: [
                CurveEstimate(epsilon=x, mean=rate, low=max(rate - 0.05, 0.0), high=min(rate + 0.05, 1.0))
                for x, rate in zip(CURVE_RADII, rates[kind], strict=True)
            ]
            for metric, rates in CURVE_RATES.items()
        }
        summary.append(row.model_copy(update={"curves": curves if row.budget == full else {}}))
    compared = []
    for row in results.summary:
        if row.budget < full or not row.victim.startswith("robust"):
            continue
        where = row.model_dump(exclude={"metrics", "n_seeds", "curves"})
        where |= {"baseline": "standard", "n_seeds": row.n_seeds}
        for metric in ("thief_robust_accuracy", "transfer_robust_accuracy"):
            gaps = [a - b for a, b in zip(*(CURVE_RATES[metric][k][1:] for k in ("robust", "standard")), strict=True)]
            for epsilon, gap in [*zip(CURVE_RADII[1:], gaps, strict=True), (None, sum(gaps) / len(gaps))]:
                value = Estimate(mean=gap, low=gap - 0.06, high=gap + 0.06)
                compared.append(comparison("curve_difference", metric, value, epsilon=epsilon, **where))
    return results.model_copy(update={"summary": summary, "comparisons": [*results.comparisons, *compared]})


def comparison(kind: Any, metric: str, value: Estimate | None, **where: Any) -> Comparison:
    """A comparison with the verdict that its interval gives."""
    neutral = 1.0 if kind in ("ratio", "query_fraction") else 0.0
    verdict: Any = "cannot tell"
    if value is not None and value.low is not None and value.low > neutral:
        verdict = "higher"
    elif value is not None and value.high is not None and value.high < neutral:
        verdict = "lower"
    return Comparison(kind=kind, metric=metric, value=value, verdict=where.pop("verdict", verdict), **where)


MODEL = "external:name=m.onnx,sha256=x0123456789abcdef"


def without_times(results: Results) -> dict[str, Any]:
    """Results as plain values, without what no two runs have in common."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items() if key not in TIMINGS}
        return [clean(item) for item in value] if isinstance(value, list) else value

    cleaned: dict[str, Any] = clean(results.model_dump(mode="json"))
    return cleaned


def make_audit(
    agreement: Mapping[int, float],
    *,
    control: float | None = 0.95,
    original: float = 0.97,
    classes: int = 10,
    test_overlap: float = 0.0,
    details: Mapping[str, float] | None = None,
    **fields: Any,
) -> Results:
    """A whole audit: of a model of one's own by its agreement at each budget, and of the control by its own.

    The default attackers, with soft and hard answers, all as good.
    """

    def rates(victim: str, defence: str, answers: str, budget: int) -> Rates:
        reached = agreement[budget] if victim == MODEL else control or 0.0
        return {"victim_accuracy": original, "thief_accuracy": reached - 0.01, "agreement": reached}

    values: dict[str, Any] = {"attacks": ("knockoff", "scout"), "budgets": tuple(agreement), "baseline": None, **fields}
    values |= {"noise": 0.0, "victims": (MODEL, "standard")}
    results = make_results(rates, **values, details={"majority_answer": 0.1, **(details or {})})
    # of the control there is one seed at the largest budget
    at = max(agreement)
    cells = [c for c in results.cells if c.victim == MODEL or (control and c.budget == at and c.seed == 0)]
    rows = [r for r in results.summary if r.victim == MODEL or (control and r.budget == at)]
    rows = [r if r.victim == MODEL else r.model_copy(update={"n_seeds": 1}) for r in rows]
    config = {**results.config, "external": {}, "control": control is not None}
    if control is None:
        config["victims"] = [MODEL]
    dataset = {**results.data["dataset"], "classes": classes, "test_overlap": test_overlap}
    data = {**results.data, "dataset": dataset, "model": {"kind": "file"}}
    changed = {"cells": cells, "summary": rows, "config": config, "data": data, "planned": len(cells)}
    return results.model_copy(update=changed)
