"""Comparisons, computed and not eyeballed: a victim against its baseline, and every defence's best attacker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from art_divqat.metrics.curves import all_queries_to_reach, queries_to_reach
from art_divqat.metrics.intervals import (
    RESAMPLES,
    Compare,
    Interval,
    Means,
    compared_means,
    mean_interval,
    resampled_means,
)
from art_divqat.metrics.table import METRICS, compared_by
from art_divqat.metrics.table import SAMPLES as _SAMPLES
from art_divqat.results.samples import curve_sample, unpack_all
from art_divqat.results.schema import Comparison
from art_divqat.victims.registry import baseline_of

Verdict = Literal["higher", "lower", "cannot tell"]
# the fields of a Comparison before it is one
_Record = dict[str, Any]
Key = tuple[str, str, str, str, str, int]
_GROUP = ("dataset", "victim", "defence", "attack", "answers", "budget")
# a quotient of two others is drawn from their samples
_RATIOS = tuple(name for name in compared_by("ratio") if name in _SAMPLES)
_QUOTIENTS = {
    name: row.quotient_of for name, row in METRICS.items() if "ratio" in row.compared and row.quotient_of is not None
}
_DIFFERENCES = compared_by("difference")
_CURVES = compared_by("curve_difference")
_DEFENCE_EFFECTS = compared_by("defence_effect")
_QUERY_FRACTIONS = compared_by("query_fraction")
_BEST_ATTACKERS = compared_by("best_attacker")
# from here on half the resamples must do: a bound is then unsure by 4 % of its distance from the mean instead of 3 %
_MANY_GROUPS = 2_000
_AT_ONCE = 4_096
_THREADS = 2
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
    resamples = RESAMPLES if len(groups) <= _MANY_GROUPS else RESAMPLES // 2
    records = _resampled(found, resamples) + _best_attackers(groups)
    # many in one call: a model made by itself costs several times as much; not all, to have few of them twice
    made: list[Comparison] = []
    for start in range(0, len(records), _AT_ONCE):
        made += _COMPARISONS.validate_python(records[start : start + _AT_ONCE])
        records[start : start + _AT_ONCE] = [{}] * len(records[start : start + _AT_ONCE])
    return made


_Set = tuple[str, Sequence[dict[str, Any]]]


@dataclass(frozen=True)
class _Drawn:
    """A comparison whose interval is a bootstrap, before it is drawn: all are drawn together.

    :param sets: the name of a sample and the lines of a group; the resampled means of each are what is compared.
    :param compare: what is made of the means; None for a query fraction, whose sets are the rates over the budgets and,
        last, the one to reach.
    """

    kind: str
    metric: str
    sets: Sequence[_Set]
    common: dict[str, Any]
    compare: Compare | None = None
    neutral: float = 1.0


def _ratio(means: Means) -> Means:
    quotient: Means = means[0] / means[1]
    return quotient


def _ratio_of_ratios(means: Means) -> Means:
    quotient: Means = (means[0] / means[1]) / (means[2] / means[3])
    return quotient


def _difference(means: Means) -> Means:
    """The mean of the first half of the sets less that of the second."""
    half = len(means) // 2
    difference: Means = means[:half].mean(axis=0) - means[half:].mean(axis=0)
    return difference


class _Sets:
    """The hits of groups of lines; what several groups share, such as the victim's own, is there once."""

    def __init__(self, sets: Iterable[_Set]) -> None:
        # most lists of lines are asked for many times, and an identity is found sooner than what is in them; it is the
        # list's for as long as the list is kept
        self._asked = {(name, id(lines)): lines for name, lines in sets}
        packed = {asked: tuple(line["samples"][asked[0]] for line in lines) for asked, lines in self._asked.items()}
        distinct = list(dict.fromkeys(packed.values()))
        texts = list(dict.fromkeys(text for each in distinct for text in each))
        rows = dict(zip(texts, unpack_all(texts), strict=True))
        self.hits: list[NDArray[np.bool_]] = [
            np.stack([rows[text] for text in each]) if each[1:] else rows[each[0]][None] for each in distinct
        ]
        numbers = {each: number for number, each in enumerate(distinct)}
        self._places = {asked: numbers[each] for asked, each in packed.items()}

    def places(self, sets: Sequence[_Set]) -> tuple[int, ...]:
        """Where the hits of each of these lines are."""
        return tuple([self._places[name, id(lines)] for name, lines in sets])


def _resampled(found: Sequence[_Record | _Drawn], resamples: int) -> list[_Record]:
    """The same comparisons, in the same order, with every interval drawn; those of one sample together, not more."""
    families: dict[str, list[tuple[int, _Drawn]]] = {}
    for number, each in enumerate(found):
        if isinstance(each, _Drawn):
            # without a defence the two agreements are one
            family = each.sets[0][0].partition("@")[0].replace("agrees_clean", "agrees")
            families.setdefault(family, []).append((number, each))
    done: dict[int, _Record] = {}
    # matrix products and sorting, which are most of it, leave the interpreter to another thread
    with ThreadPoolExecutor(_THREADS) as pool:
        for of_family in pool.map(lambda asked: _family(asked, resamples), families.values()):
            done |= of_family
    return [done[n] if isinstance(each, _Drawn) else each for n, each in enumerate(found)]


def _family(asked: Sequence[tuple[int, _Drawn]], resamples: int) -> dict[int, _Record]:
    """The comparisons of one family of samples, with their intervals, by their numbers."""
    sets = _Sets(one for _, each in asked for one in each.sets)
    drawn = resampled_means(sets.hits, resamples=resamples)
    places = {n: sets.places(each.sets) for n, each in asked}
    compares = [(places[n], each.compare) for n, each in asked if each.compare is not None]
    once = list(dict.fromkeys(compares))
    intervals = dict(zip(once, compared_means(sets.hits, drawn, once), strict=True))
    return {
        n: _query_fraction(each, sets, places[n], drawn)
        if each.compare is None
        else _compared(each.kind, each.metric, intervals[places[n], each.compare], each.neutral, each.common)
        for n, each in asked
    }


def _key(line: dict[str, Any]) -> Key:
    cell = line["cell"]
    return (cell["dataset"], cell["victim"], cell["defence"], cell["attack"], cell["answers"], cell["budget"])


def _pair(
    group: list[dict[str, Any]], other: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of the seeds that both have, in the order of the first; the lists themselves if these are all."""
    ours, theirs = ([line["cell"]["seed"] for line in lines] for lines in (group, other))
    if ours == theirs:
        return group, other
    by_seed = dict(zip(theirs, other, strict=True))
    both = [(line, by_seed[seed]) for seed, line in zip(ours, group, strict=True) if seed in by_seed]
    return [line for line, _ in both], [line for _, line in both]


def _has(name: str, *groups: Sequence[dict[str, Any]]) -> bool:
    """Whether every line kept this sample, as those of earlier versions may not."""
    return all(name in line.get("samples", {}) for group in groups for line in group)


def _against_baseline(
    key: Key, group: list[dict[str, Any]], baseline: str, other: list[dict[str, Any]]
) -> list[_Record | _Drawn]:
    ours, theirs = _pair(group, other)
    if not ours:
        return []
    common: dict[str, Any] = {**dict(zip(_GROUP, key, strict=True)), "baseline": baseline, "n_seeds": len(ours)}
    found: list[_Record | _Drawn] = []
    for metric in _RATIOS:
        if any(line["metrics"][metric] > 0 for line in theirs):
            sample = _SAMPLES[metric]
            found.append(_Drawn("ratio", metric, ((sample, ours), (sample, theirs)), common, _ratio))
    for metric, parts in _QUOTIENTS.items():
        correct = [(_SAMPLES[part], side) for side in (ours, theirs) for part in parts]
        if all(_has(*one) for one in correct) and any(line["metrics"][parts[0]] > 0 for line in theirs):
            found.append(_Drawn("ratio", metric, correct, common, _ratio_of_ratios))
    for metric in _DIFFERENCES:
        values = [(a["metrics"].get(metric), b["metrics"].get(metric)) for a, b in zip(ours, theirs, strict=True)]
        numbers = [a - b for a, b in values if a is not None and b is not None]
        if not numbers or len(numbers) < len(values):
            continue
        sample = _SAMPLES.get(metric, metric)
        if _has(sample, ours, theirs):
            found.append(_Drawn("difference", metric, ((sample, ours), (sample, theirs)), common, _difference, 0.0))
        else:
            found.append(_compared("difference", metric, mean_interval(numbers, (-1.0, 1.0)), 0.0, common))
    return found + _curve_differences(ours, theirs, common)


def _curve_differences(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], common: dict[str, Any]
) -> list[_Record | _Drawn]:
    """At every radius above 0 that all curves have, and over these radii together."""
    found: list[_Record | _Drawn] = []
    for metric in _CURVES:
        curves = [[p["epsilon"] for p in line.get("curves", {}).get(metric, [])] for line in (*ours, *theirs)]
        radii = [radius for radius in curves[0] if radius > 0 and all(radius in curve for curve in curves)]
        for epsilon, over in [*((r, [r]) for r in radii), *([(None, radii)] if radii else [])]:
            names = [curve_sample(metric, radius) for radius in over]
            if all(_has(name, ours, theirs) for name in names):
                sets = [(name, side) for side in (ours, theirs) for name in names]
                where = {**common, "epsilon": epsilon}
                found.append(_Drawn("curve_difference", metric, sets, where, _difference, 0.0))
    return found


def _defence_effects(groups: dict[Key, list[dict[str, Any]]]) -> list[_Record | _Drawn]:
    """What each defence takes from the thief: thief accuracy and agreement with it minus without, paired by seed."""
    found: list[_Record | _Drawn] = []
    for key, group in groups.items():
        bare = groups.get((*key[:2], "none", *key[3:]))
        if key[2] == "none" or bare is None:
            continue
        first, second = _pair(group, bare)
        common: dict[str, Any] = {**dict(zip(_GROUP, key, strict=True)), "n_seeds": len(first)}
        if not first:
            continue
        for metric in _DEFENCE_EFFECTS:
            sample = _SAMPLES[metric]
            sets = ((sample, first), (sample, second))
            found.append(_Drawn("defence_effect", metric, sets, common, _difference, 0.0))
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
        groups_in_order = [*(by_budget[budget] for budget in budgets), target]
        for metric in _QUERY_FRACTIONS:
            sets = [(_SAMPLES[metric], lines) for lines in groups_in_order]
            found.append(_Drawn("query_fraction", metric, sets, common))
    return found


def _query_fraction(asked: _Drawn, sets: _Sets, places: tuple[int, ...], drawn: Means) -> _Record:
    common = {"kind": asked.kind, "metric": asked.metric, **asked.common}
    if len({sets.hits[place].shape for place in places}) > 1:
        return {**common, "value": None, "verdict": "cannot tell"}
    budgets = [lines[0]["cell"]["budget"] for _, lines in asked.sets[:-1]]
    rates = [np.count_nonzero(sets.hits[place]) / sets.hits[place].size for place in places]
    reached = queries_to_reach(rates[-1], budgets, rates[:-1])
    # infinite where a resample does not reach it
    fractions = all_queries_to_reach(drawn[places[-1]], budgets, drawn[list(places[:-1])].T) / budgets[-1]
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
        for metric in _BEST_ATTACKERS:
            mean = fmean(line["metrics"][metric] for line in group)
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
