"""Comparisons, computed and not eyeballed: a victim against its baseline, and every defence's best attacker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from art_divqat.audit.samples import curve_sample, unpack_all
from art_divqat.audit.schema import Comparison
from art_divqat.audit.victims import baseline_of
from art_divqat.metrics.curves import all_queries_to_reach, queries_to_reach
from art_divqat.metrics.intervals import (
    RESAMPLES,
    Interval,
    Statistic,
    bootstrap_means,
    compared_means,
    mean_interval,
    resampled_means,
)

Verdict = Literal["higher", "lower", "cannot tell"]
# the fields of a Comparison before it is one
_Record = dict[str, Any]
Key = tuple[str, str, str, str, str, int]
_GROUP = ("dataset", "victim", "defence", "attack", "answers", "budget")
_PAIRED = {"thief_accuracy": "thief_correct", "agreement": "agrees", "agreement_clean": "agrees_clean"}
_DIFFERENCES = ("thief_robust_accuracy", "transfer_robust_accuracy", "transfer_attack_success")
_CURVES = ("thief_robust_accuracy", "transfer_robust_accuracy")
_COMPARISONS = TypeAdapter(list[Comparison])


def compare_cells(lines: Sequence[dict[str, Any]], victims: Sequence[str]) -> list[Comparison]:
    """Every comparison that the finished cells allow, in a fixed order."""
    groups: dict[Key, list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(_key(line), []).append(line)
    found: list[_Record | _Drawn] = []
    for key, group in groups.items():
        baseline = baseline_of(key[1], victims)
        if baseline is not None and (other := groups.get((key[0], baseline, *key[2:]))) is not None:
            found += _against_baseline(key, group, baseline, other)
    found += _defence_effects(groups)
    found += _query_fractions(groups, victims)
    # all in one call: a model made by itself costs several times as much
    return _COMPARISONS.validate_python(_resampled(found) + _best_attackers(groups))


@dataclass(frozen=True)
class _Drawn:
    """A comparison whose interval is a bootstrap, before it is drawn: all are drawn together.

    :param sets: lines, group by group; the resampled rates of each group are what the interval is made of.
    :param statistic: of the two rates of a pair; None for a query fraction, whose sets are the rates over the budgets
        and, last, the one to reach.
    """

    kind: Literal["ratio", "defence_effect", "query_fraction"]
    metric: str
    sets: Sequence[Sequence[dict[str, Any]]]
    common: dict[str, Any]
    statistic: Statistic | None = None
    neutral: float = 1.0


class _Sets:
    """The hits of groups of lines, each unpacked once."""

    def __init__(self, sample: str, lines: Iterable[dict[str, Any]]) -> None:
        self.hits: list[NDArray[np.bool_]] = []
        self._places: dict[tuple[int, ...], int] = {}
        every = {id(line): line["samples"][sample] for line in lines}
        self._rows = dict(zip(every, unpack_all(list(every.values())), strict=True))

    def place(self, lines: Sequence[dict[str, Any]]) -> int:
        """Where the hits of these lines are."""
        name = tuple(map(id, lines))
        if name not in self._places:
            self._places[name] = len(self.hits)
            self.hits.append(np.stack([self._rows[line] for line in name]) if name[1:] else self._rows[name[0]][None])
        return self._places[name]


def _resampled(found: Sequence[_Record | _Drawn]) -> list[_Record]:
    """The same comparisons, in the same order, with every interval drawn; one metric at a time, to spare memory."""
    done: dict[int, _Record] = {}
    for metric, sample in _PAIRED.items():
        asked = [(n, each) for n, each in enumerate(found) if isinstance(each, _Drawn) and each.metric == metric]
        sets = _Sets(sample, (line for _, each in asked for group in each.sets for line in group))
        places = {n: [sets.place(group) for group in each.sets] for n, each in asked}
        drawn = resampled_means(sets.hits)
        paired = [(n, each, each.statistic) for n, each in asked if each.statistic is not None]
        pairs = [(places[n][0], places[n][1], statistic) for n, _, statistic in paired]
        for (n, each, _), interval in zip(paired, compared_means(sets.hits, drawn, pairs), strict=True):
            done[n] = _compared(each.kind, metric, interval, each.neutral, each.common)
        done.update((n, _query_fraction(each, sets, places[n], drawn)) for n, each in asked if each.statistic is None)
    return [done[n] if isinstance(each, _Drawn) else each for n, each in enumerate(found)]


def _key(line: dict[str, Any]) -> Key:
    cell = line["cell"]
    return (cell["dataset"], cell["victim"], cell["defence"], cell["attack"], cell["answers"], cell["budget"])


def _pair(group: list[dict[str, Any]], other: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    by_seed = {line["cell"]["seed"]: line for line in other}
    return [(line, by_seed[line["cell"]["seed"]]) for line in group if line["cell"]["seed"] in by_seed]


def _hits(lines: Sequence[dict[str, Any]], sample: str) -> NDArray[np.bool_]:
    return np.stack(unpack_all([line["samples"][sample] for line in lines]))


def _against_baseline(
    key: Key, group: list[dict[str, Any]], baseline: str, other: list[dict[str, Any]]
) -> list[_Record | _Drawn]:
    pairs = _pair(group, other)
    if not pairs:
        return []
    ours, theirs = [first for first, _ in pairs], [second for _, second in pairs]
    common: dict[str, Any] = {**dict(zip(_GROUP, key, strict=True)), "baseline": baseline, "n_seeds": len(pairs)}
    found: list[_Record | _Drawn] = []
    for metric in _PAIRED:
        if any(line["metrics"][metric] > 0 for line in theirs):
            found.append(_Drawn("ratio", metric, (ours, theirs), common, np.divide, 1.0))
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
) -> list[_Record]:
    """At every radius above 0 that all curves have, and over these radii together."""
    found = []
    for metric in _CURVES:
        curves = [[p["epsilon"] for p in line.get("curves", {}).get(metric, [])] for line in (*ours, *theirs)]
        radii = [radius for radius in curves[0] if radius > 0 and all(radius in curve for curve in curves)]
        for epsilon, over in [*((r, [r]) for r in radii), *([(None, radii)] if radii else [])]:
            interval = _paired_difference(ours, theirs, [curve_sample(metric, radius) for radius in over])
            if interval is not None:
                found.append(_compared("curve_difference", metric, interval, 0.0, {**common, "epsilon": epsilon}))
    return found


def _defence_effects(groups: dict[Key, list[dict[str, Any]]]) -> list[_Record | _Drawn]:
    """What each defence takes from the thief: thief accuracy and agreement with it minus without, paired by seed."""
    found: list[_Record | _Drawn] = []
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
            found.append(_Drawn("defence_effect", metric, (first, second), common, np.subtract, 0.0))
    return found


def _compared(kind: str, metric: str, interval: Interval, neutral: float, common: dict[str, Any]) -> _Record:
    verdict = verdict_of(interval, neutral)
    return {"kind": kind, "metric": metric, "value": as_estimate(interval), "verdict": verdict, **common}


def as_estimate(interval: Interval) -> dict[str, float | None]:
    """An interval with the names that results are written in."""
    return {"mean": interval[0], "low": interval[1], "high": interval[2]}


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


def _query_fractions(groups: dict[Key, list[dict[str, Any]]], victims: Sequence[str]) -> list[_Drawn]:
    curves: dict[tuple[str, ...], dict[int, list[dict[str, Any]]]] = {}
    for key, group in groups.items():
        curves.setdefault(key[:5], {})[key[5]] = group
    found = []
    for curve, by_budget in curves.items():
        baseline = baseline_of(curve[1], victims)
        other = curves.get((curve[0], baseline or "", *curve[2:]))
        if baseline is None or other is None or sorted(other) != sorted(by_budget) or len(by_budget) < 2:
            continue
        budgets = sorted(by_budget)
        target = other[budgets[-1]]
        common: dict[str, Any] = {
            **dict(zip(_GROUP, (*curve, budgets[-1]), strict=True)),
            "baseline": baseline,
            "n_seeds": len(target),
        }
        sets = [*(by_budget[budget] for budget in budgets), target]
        found += [_Drawn("query_fraction", metric, sets, common) for metric in list(_PAIRED)[:2]]
    return found


def _query_fraction(asked: _Drawn, sets: _Sets, places: list[int], drawn: NDArray[np.float64]) -> _Record:
    common = {"kind": asked.kind, "metric": asked.metric, **asked.common}
    if len({sets.hits[place].shape for place in places}) > 1:
        return {**common, "value": None, "verdict": "cannot tell"}
    budgets = [lines[0]["cell"]["budget"] for lines in asked.sets[:-1]]
    rates = [np.count_nonzero(sets.hits[place]) / sets.hits[place].size for place in places]
    reached = queries_to_reach(rates[-1], budgets, rates[:-1])
    # infinite where a resample does not reach it
    fractions = all_queries_to_reach(drawn[places[-1]], budgets, drawn[places[:-1]].T) / budgets[-1]
    low, high = (float(q) for q in np.quantile(fractions, [0.025, 0.975], method="nearest"))
    if reached is None:
        verdict = "higher" if low > 1 else "cannot tell"
        return {**common, "value": None, "bound": "not reached", "verdict": verdict}
    interval = Interval(reached / budgets[-1], low, high if np.isfinite(high) else None)
    bound = "at most" if reached == budgets[0] else "exact"
    return {**common, "value": as_estimate(interval), "bound": bound, "verdict": verdict_of(interval, 1.0)}


def _best_attackers(groups: dict[Key, list[dict[str, Any]]]) -> list[_Record]:
    best: dict[tuple[str, str, str, int, str], tuple[float, Key]] = {}
    for key, group in groups.items():
        for metric in ("thief_accuracy", "agreement"):
            mean = float(np.mean([float(line["metrics"][metric]) for line in group]))
            place = (*key[:3], key[5], metric)
            if place not in best or mean > best[place][0]:
                best[place] = (mean, key)
    return [
        {
            "kind": "best_attacker",
            "metric": metric,
            "value": as_estimate(mean_interval([float(line["metrics"][metric]) for line in groups[key]])),
            "n_seeds": len(groups[key]),
            **dict(zip(_GROUP, key, strict=True)),
        }
        for (*_, metric), (_, key) in best.items()
    ]
