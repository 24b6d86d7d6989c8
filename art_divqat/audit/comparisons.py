"""Comparisons, computed and not eyeballed: a victim against its baseline, and every defence's best attacker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from art_divqat.audit.samples import curve_sample, unpack
from art_divqat.audit.schema import Comparison, Estimate
from art_divqat.audit.victims import baseline_of
from art_divqat.metrics.curves import all_queries_to_reach, queries_to_reach
from art_divqat.metrics.intervals import (
    RESAMPLES,
    Interval,
    Statistic,
    bootstrap_means,
    mean_interval,
    paired_bootstraps,
    resampled_means,
)

Verdict = Literal["higher", "lower", "cannot tell"]
Key = tuple[str, str, str, str, str, int]
_GROUP = ("dataset", "victim", "defence", "attack", "answers", "budget")
_PAIRED = {"thief_accuracy": "thief_correct", "agreement": "agrees", "agreement_clean": "agrees_clean"}
_DIFFERENCES = ("thief_robust_accuracy", "transfer_robust_accuracy", "transfer_attack_success")
_CURVES = ("thief_robust_accuracy", "transfer_robust_accuracy")
_CURVE_RESAMPLES = 1_000


def compare_cells(lines: Sequence[dict[str, Any]], victims: Sequence[str]) -> list[Comparison]:
    """Every comparison that the finished cells allow, in a fixed order."""
    groups: dict[Key, list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(_key(line), []).append(line)
    paired: list[Comparison | _Paired] = []
    for key, group in groups.items():
        baseline = baseline_of(key[1], victims)
        if baseline is not None and (other := groups.get((key[0], baseline, *key[2:]))) is not None:
            paired += _against_baseline(key, group, baseline, other)
    paired += _defence_effects(groups)
    found = _resampled(paired)
    found += _query_fractions(groups, victims)
    found += _best_attackers(groups)
    return found


@dataclass(frozen=True)
class _Paired:
    """A comparison whose interval is a bootstrap, before it is drawn: all are drawn together."""

    kind: Literal["ratio", "defence_effect"]
    metric: str
    first: Sequence[dict[str, Any]]
    second: Sequence[dict[str, Any]]
    statistic: Statistic
    neutral: float
    common: dict[str, Any]


class _Sets:
    """The hits of groups of lines, each unpacked once."""

    def __init__(self, sample: str) -> None:
        self.hits: list[NDArray[np.bool_]] = []
        self._sample = sample
        self._places: dict[tuple[int, ...], int] = {}

    def place(self, lines: Sequence[dict[str, Any]]) -> int:
        """Where the hits of these lines are."""
        name = tuple(map(id, lines))
        if name not in self._places:
            self._places[name] = len(self.hits)
            self.hits.append(_hits(lines, self._sample))
        return self._places[name]


def _resampled(found: Sequence[Comparison | _Paired]) -> list[Comparison]:
    """The same comparisons, in the same order, with every interval drawn; one metric at a time, to spare memory."""
    intervals: dict[int, Interval] = {}
    for metric, sample in _PAIRED.items():
        asked = [(n, each) for n, each in enumerate(found) if isinstance(each, _Paired) and each.metric == metric]
        sets = _Sets(sample)
        pairs = [(sets.place(each.first), sets.place(each.second), each.statistic) for _, each in asked]
        intervals.update(zip((n for n, _ in asked), paired_bootstraps(sets.hits, pairs), strict=True))
    return [
        _compared(each.kind, each.metric, intervals[n], each.neutral, each.common)
        if isinstance(each, _Paired)
        else each
        for n, each in enumerate(found)
    ]


def _key(line: dict[str, Any]) -> Key:
    cell = line["cell"]
    return (cell["dataset"], cell["victim"], cell["defence"], cell["attack"], cell["answers"], cell["budget"])


def _pair(group: list[dict[str, Any]], other: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    by_seed = {line["cell"]["seed"]: line for line in other}
    return [(line, by_seed[line["cell"]["seed"]]) for line in group if line["cell"]["seed"] in by_seed]


def _hits(lines: Sequence[dict[str, Any]], sample: str) -> NDArray[np.bool_]:
    return np.stack([unpack(line["samples"][sample]) for line in lines])


def _against_baseline(
    key: Key, group: list[dict[str, Any]], baseline: str, other: list[dict[str, Any]]
) -> list[Comparison | _Paired]:
    pairs = _pair(group, other)
    if not pairs:
        return []
    ours, theirs = [first for first, _ in pairs], [second for _, second in pairs]
    common: dict[str, Any] = {**dict(zip(_GROUP, key, strict=True)), "baseline": baseline, "n_seeds": len(pairs)}
    found: list[Comparison | _Paired] = []
    for metric in _PAIRED:
        if any(line["metrics"][metric] > 0 for line in theirs):
            found.append(_Paired("ratio", metric, ours, theirs, np.divide, 1.0, common))
    for metric in _DIFFERENCES:
        values = [(a["metrics"].get(metric), b["metrics"].get(metric)) for a, b in pairs]
        numbers = [a - b for a, b in values if a is not None and b is not None]
        if numbers and len(numbers) == len(values):
            interval = _paired_difference(ours, theirs, [metric]) or mean_interval(numbers, (-1.0, 1.0))
            found.append(_compared("difference", metric, interval, 0.0, common))
    return found + _curve_differences(ours, theirs, common)


def _paired_difference(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], samples: Sequence[str]
) -> Interval | None:
    """The difference of rates, or of their mean over several samples, by bootstrap over seeds and images in pairs.

    None where a line holds no such sample, as those of earlier versions.
    """
    if not all(name in line.get("samples", {}) for line in (*ours, *theirs) for name in samples):
        return None
    hits = np.stack([_hits(side, name) for side in (ours, theirs) for name in samples])
    means = bootstrap_means(hits, resamples=RESAMPLES, seed=0).reshape(RESAMPLES, 2, len(samples)).mean(axis=2)
    low, high = (float(q) for q in np.quantile(means[:, 0] - means[:, 1], [0.025, 0.975]))
    rates = hits.reshape(2, -1).mean(axis=1)
    return Interval(float(rates[0] - rates[1]), low, high)


def _curve_differences(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], common: dict[str, Any]
) -> list[Comparison]:
    """At every radius above 0 that all curves have, and over these radii together."""
    found = []
    for metric in _CURVES:
        curves = [[p["epsilon"] for p in line.get("curves", {}).get(metric, [])] for line in (*ours, *theirs)]
        radii = [radius for radius in curves[0] if radius > 0 and all(radius in curve for curve in curves)]
        for epsilon, over in [*((r, [r]) for r in radii), *([(None, radii)] if radii else [])]:
            interval = _paired_difference(ours, theirs, [curve_sample(metric, radius) for radius in over])
            if interval is not None:
                compared = _compared("curve_difference", metric, interval, 0.0, common)
                found.append(compared.model_copy(update={"epsilon": epsilon}))
    return found


def _defence_effects(groups: dict[Key, list[dict[str, Any]]]) -> list[Comparison | _Paired]:
    """What each defence takes from the thief: thief accuracy and agreement with it minus without, paired by seed."""
    found: list[Comparison | _Paired] = []
    for key, group in groups.items():
        bare = groups.get((*key[:2], "none", *key[3:]))
        if key[2] == "none" or bare is None:
            continue
        pairs = _pair(group, bare)
        common: dict[str, Any] = {**dict(zip(_GROUP, key, strict=True)), "n_seeds": len(pairs)}
        if not pairs:
            continue
        first, second = [line for line, _ in pairs], [line for _, line in pairs]
        for metric in ("thief_accuracy", "agreement_clean"):
            found.append(_Paired("defence_effect", metric, first, second, np.subtract, 0.0, common))
    return found


def _compared(
    kind: Literal["ratio", "difference", "curve_difference", "defence_effect"],
    metric: str,
    interval: Interval,
    neutral: float,
    common: dict[str, Any],
) -> Comparison:
    return Comparison(
        kind=kind, metric=metric, value=as_estimate(interval), verdict=verdict_of(interval, neutral), **common
    )


def as_estimate(interval: Interval) -> Estimate:
    """An interval in the form that results are written in."""
    return Estimate(mean=interval.mean, low=interval.low, high=interval.high)


def verdict_of(interval: Interval, neutral: float) -> Verdict:
    """`higher` or `lower` if the whole interval is on one side of `neutral`, else `cannot tell`.

    >>> verdict_of(Interval(1.2, 1.1, 1.3), 1.0)
    'higher'
    """
    if interval.low is not None and interval.low > neutral:
        return "higher"
    if interval.high is not None and interval.high < neutral:
        return "lower"
    return "cannot tell"


def _query_fractions(groups: dict[Key, list[dict[str, Any]]], victims: Sequence[str]) -> list[Comparison]:
    curves: dict[tuple[str, ...], dict[int, list[dict[str, Any]]]] = {}
    for key, group in groups.items():
        curves.setdefault(key[:5], {})[key[5]] = group
    asked: list[tuple[dict[int, list[dict[str, Any]]], list[dict[str, Any]], dict[str, Any]]] = []
    for curve, by_budget in curves.items():
        baseline = baseline_of(curve[1], victims)
        other = curves.get((curve[0], baseline or "", *curve[2:]))
        if baseline is None or other is None or sorted(other) != sorted(by_budget) or len(by_budget) < 2:
            continue
        full = max(by_budget)
        common: dict[str, Any] = {
            **dict(zip(_GROUP, (*curve, full), strict=True)),
            "baseline": baseline,
            "n_seeds": len(other[full]),
        }
        asked.append((by_budget, other[full], common))
    columns = [_fractions_of(metric, sample, asked) for metric, sample in list(_PAIRED.items())[:2]]
    return [compared for of_curve in zip(*columns, strict=True) for compared in of_curve]


def _fractions_of(
    metric: str,
    sample: str,
    asked: Sequence[tuple[dict[int, list[dict[str, Any]]], list[dict[str, Any]], dict[str, Any]]],
) -> list[Comparison]:
    """The query fractions of one metric, every set of hits resampled once for all curves that it is in."""
    sets = _Sets(sample)
    places = [
        ([sets.place(by_budget[budget]) for budget in sorted(by_budget)], sets.place(target))
        for by_budget, target, _ in asked
    ]
    drawn = resampled_means(sets.hits, resamples=_CURVE_RESAMPLES)
    found = []
    for (by_budget, _, common), (curve, target) in zip(asked, places, strict=True):
        shapes = {sets.hits[place].shape for place in (*curve, target)}
        if len(shapes) > 1:
            found.append(
                Comparison(
                    kind="query_fraction", metric=metric, value=None, bound=None, verdict="cannot tell", **common
                )
            )
            continue
        rates = [np.count_nonzero(sets.hits[place]) / sets.hits[place].size for place in (*curve, target)]
        found.append(_query_fraction(metric, sorted(by_budget), rates, drawn[[*curve, target]].T, common))
    return found


def _query_fraction(
    metric: str, budgets: list[int], rates: list[float], means: NDArray[np.float64], common: dict[str, Any]
) -> Comparison:
    """:param rates: at every budget, then of the baseline at the full one; `means` are their resamples, one a row."""
    full = budgets[-1]
    reached = queries_to_reach(rates[-1], budgets, rates[:-1])
    # infinite where a resample does not reach it
    drawn = all_queries_to_reach(means[:, -1], budgets, means[:, :-1]) / full
    low, high = (float(q) for q in np.quantile(drawn, [0.025, 0.975], method="nearest"))
    if reached is None:
        return Comparison(
            kind="query_fraction",
            metric=metric,
            value=None,
            bound="not reached",
            verdict="higher" if low > 1 else "cannot tell",
            **common,
        )
    interval = Interval(reached / full, low, high if np.isfinite(high) else None)
    return Comparison(
        kind="query_fraction",
        metric=metric,
        value=as_estimate(interval),
        bound="at most" if reached == budgets[0] else "exact",
        verdict=verdict_of(interval, 1.0),
        **common,
    )


def _best_attackers(groups: dict[Key, list[dict[str, Any]]]) -> list[Comparison]:
    best: dict[tuple[str, str, str, int, str], tuple[float, Key]] = {}
    for key, group in groups.items():
        for metric in ("thief_accuracy", "agreement"):
            mean = float(np.mean([float(line["metrics"][metric]) for line in group]))
            place = (*key[:3], key[5], metric)
            if place not in best or mean > best[place][0]:
                best[place] = (mean, key)
    return [
        Comparison(
            kind="best_attacker",
            metric=metric,
            value=as_estimate(mean_interval([float(line["metrics"][metric]) for line in groups[key]])),
            n_seeds=len(groups[key]),
            **dict(zip(_GROUP, key, strict=True)),
        )
        for (*_, metric), (_, key) in best.items()
    ]
