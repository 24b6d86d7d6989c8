"""Resampling: draw bootstrap intervals of paired ratios and differences, and give their verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from art_divqat.metrics.curves import all_queries_to_reach, queries_to_reach
from art_divqat.metrics.intervals import Compare, Interval, Means, compared_means, resampled_means
from art_divqat.results.samples import unpack_all

Verdict = Literal["higher", "lower", "cannot tell"]
# a sample of every seed of a group, each as text
Packed = tuple[str, ...]
# the fields of a Comparison before it is one
Fields = dict[str, Any]
_THREADS = 2


@dataclass(frozen=True)
class Drawn:
    """A comparison whose interval is a bootstrap, before it is drawn: all are drawn together.

    :param family: what the samples are of: comparisons of one family share their draws.
    :param sets: the samples whose resampled means are compared.
    :param compare: what is made of the means; None for a query fraction, whose sets are the rates over the budgets and,
        last, the one to reach.
    :param budgets: of a query fraction, those of its sets but the last.
    """

    kind: str
    metric: str
    family: str
    sets: Sequence[Packed]
    common: Fields
    compare: Compare | None = None
    neutral: float = 1.0
    budgets: Sequence[int] = ()


def ratio(means: Means) -> Means:
    quotient: Means = means[0] / means[1]
    return quotient


def ratio_of_ratios(means: Means) -> Means:
    quotient: Means = (means[0] / means[1]) / (means[2] / means[3])
    return quotient


def difference(means: Means) -> Means:
    """The mean of the first half of the sets less that of the second."""
    half = len(means) // 2
    difference: Means = means[:half].mean(axis=0) - means[half:].mean(axis=0)
    return difference


class _Sets:
    """The hits behind samples; what several groups share, such as the victim's own, is there once."""

    def __init__(self, sets: Iterable[Packed]) -> None:
        distinct = list(dict.fromkeys(sets))
        texts = list(dict.fromkeys(text for each in distinct for text in each))
        rows = dict(zip(texts, unpack_all(texts), strict=True))
        self.hits: list[NDArray[np.bool_]] = [
            np.stack([rows[text] for text in each]) if each[1:] else rows[each[0]][None] for each in distinct
        ]
        self._places = {each: number for number, each in enumerate(distinct)}

    def places(self, sets: Sequence[Packed]) -> tuple[int, ...]:
        """Where the hits of each of these samples are."""
        return tuple([self._places[each] for each in sets])


def draw_intervals(found: Sequence[Fields | Drawn], resamples: int) -> list[Fields]:
    """The same comparisons, in the same order, with every interval drawn; those of one sample together, not more."""
    families: dict[str, list[tuple[int, Drawn]]] = {}
    for number, each in enumerate(found):
        if isinstance(each, Drawn):
            families.setdefault(each.family, []).append((number, each))
    done: dict[int, Fields] = {}
    # matrix products and sorting, which are most of it, leave the interpreter to another thread
    with ThreadPoolExecutor(_THREADS) as pool:
        for of_family in pool.map(lambda asked: _family(asked, resamples), families.values()):
            done |= of_family
    return [done[n] if isinstance(each, Drawn) else each for n, each in enumerate(found)]


def _family(asked: Sequence[tuple[int, Drawn]], resamples: int) -> dict[int, Fields]:
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
        else compared(each.kind, each.metric, intervals[places[n], each.compare], each.neutral, each.common)
        for n, each in asked
    }


def compared(kind: str, metric: str, interval: Interval, neutral: float, common: Fields) -> Fields:
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


def _query_fraction(asked: Drawn, sets: _Sets, places: tuple[int, ...], drawn: Means) -> Fields:
    common = {"kind": asked.kind, "metric": asked.metric, **asked.common}
    if len({sets.hits[place].shape for place in places}) > 1:
        return {**common, "value": None, "verdict": "cannot tell"}
    budgets = asked.budgets
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
