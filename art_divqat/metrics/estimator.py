"""Estimate rates, differences, ratios and query fractions from hits of seeds × images.

One table (seeds, images) says which images counted in each seed. It is crossed: every seed saw every image. Two-way
random effects without replication give the variance of its mean, that of the seeds and that of the images both in it
(Searle, Casella and McCulloch, Variance Components, 1992, ch. 4), and Student's t gives the interval:

    variance = (MS_seeds + max(MS_images − MS_error, 0)) / (seeds · images)

A difference is the mean of the table of differences; ratios and rates are linearised (delta method) on a scale where
they have no bounds, the logarithm and the logit. The interval of a query fraction holds the fractions at which the
difference of the two thieves cannot be told from zero. One seed has no MS_seeds: there only the images are covered.

`evaluations/benchmarks/coverage` simulates how often these intervals hold the truth, and says where they do not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from art_divqat.metrics.curves import queries_to_reach
from art_divqat.metrics.intervals import CONFIDENCE, Interval, mean_intervals, wilson_intervals

Hits = NDArray[np.bool_]
Floats = NDArray[np.float64]
# seeds that differ by less than a twentieth of what their cells alone make them differ do so by luck: it keeps three
# seeds of equal counts from an interval without a width, and adds .01 at most to its cover
_LEAST_SEEDS = 0.05
# tables in one go, which stay in a cache; points of a segment of a budget curve
_CELLS, _STEPS = 1 << 18, 16
# variance that is left of a table without any
_ROUNDING = 1e-20
_QUANTILES = 2_048


class Parts(NamedTuple):
    """Of an effect on the scale it is tested on: its distance from no effect, and the parts of its variance.

    With n seeds the variance is `of_seeds` / n + `of_images`: more seeds on the same images leave the second part.
    """

    distance: float
    of_seeds: float
    of_images: float
    images: int


class Effect(NamedTuple):
    """An estimate, its 95 % interval, and the two-sided p value of its neutral value; None where nothing can be said.

    The mean is None where a query fraction is not reached; the parts are None where no variance of seeds is known.
    """

    mean: float | None
    low: float | None
    high: float | None
    p_value: float | None
    parts: Parts | None = None


class Error(NamedTuple):
    """The standard errors of the means of tables, and their degrees of freedom; infinite where one cell is all."""

    standard: Floats
    freedom: Floats


class _MeanSquares(NamedTuple):
    """Of each table: that of the means of its seeds, of its images, and what neither explains."""

    seeds: Floats
    images: Floats
    cells: Floats


def _mean_squares(tables: NDArray[Any]) -> _MeanSquares:
    _, seeds, images = tables.shape
    values = tables.astype(np.float64)
    values -= values.mean(axis=(1, 2))[:, None, None]
    by_seeds = images * (values.mean(axis=2) ** 2).sum(axis=1)
    by_images = seeds * (values.mean(axis=1) ** 2).sum(axis=1)
    left = np.maximum(np.einsum("tsi,tsi->t", values, values) - by_seeds - by_images, 0)
    return _MeanSquares(
        by_seeds / max(seeds - 1, 1), by_images / max(images - 1, 1), left / max((seeds - 1) * (images - 1), 1)
    )


def crossed_error(tables: NDArray[Any]) -> Error:
    """The standard error of the mean of each table, over seeds and images drawn anew.

    The degrees of freedom are the harmonic mean of those of the seeds and of the images, weighted by their shares of
    the variance. Satterthwaite's formula squares the shares; as these are estimated, from two degrees of freedom where
    there are three seeds, its intervals are too short.

    :param tables: (tables, seeds, images).

    >>> crossed_error(np.array([[[0.0, 1.0], [1.0, 2.0]]])).standard  # rows and columns add up: no error in the cells
    array([0.70710678])
    """
    return _error(_mean_squares(tables), *tables.shape[1:])


def _error(squares: _MeanSquares, seeds: int, images: int) -> Error:
    if seeds == 1 or images == 1:
        number = max(seeds, images)
        if number == 1:
            return Error(np.full(len(squares.cells), np.inf), np.ones(len(squares.cells)))
        only = squares.images if seeds == 1 else squares.seeds
        return Error(np.sqrt(only / number), np.full(len(only), number - 1.0))
    of_seeds, of_images = _shares(squares)
    total = of_seeds + of_images
    nothing = total <= _ROUNDING
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = total / (of_seeds / (seeds - 1) + of_images / (images - 1))
    return Error(np.sqrt(np.where(nothing, 0, total) / (seeds * images)), np.where(nothing, seeds - 1.0, freedom))


def _shares(squares: _MeanSquares) -> tuple[Floats, Floats]:
    """What the seeds and what the images give to the variance, times the number of cells."""
    return np.maximum(squares.seeds, _LEAST_SEEDS * squares.cells), np.maximum(squares.images - squares.cells, 0)


def _parts(distances: Floats, squares: _MeanSquares, seeds: int, images: int) -> list[Parts | None]:
    if seeds == 1 or images == 1:
        return [None] * len(distances)
    of_seeds, of_images = _shares(squares)
    columns = (np.abs(distances), of_seeds / images, of_images / (seeds * images))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [Parts(distance, varying, fixed, images) for distance, varying, fixed in rows]


@functools.lru_cache(maxsize=1)
def _quantiles() -> Floats:
    from scipy import special

    shares = np.arange(_QUANTILES + 1) / _QUANTILES
    found: Floats = special.stdtrit(1 / np.maximum(shares, 1e-12), (1 + CONFIDENCE) / 2)
    return found


def margin(error: Error) -> Floats:
    """Half the widths of the 95 % intervals: standard errors times Student's quantiles.

    >>> margin(Error(np.array([1.0]), np.array([2.0])))
    array([4.30265273])
    """
    # of which thousands cost a second; in 1/freedom they lie on a smooth curve, read to six digits
    shares = np.arange(_QUANTILES + 1) / _QUANTILES
    found: Floats = np.interp(1 / error.freedom, shares, _quantiles()) * error.standard
    return found


def p_values(distances: Floats, error: Error) -> Floats:
    """How likely so large a distance from the truth is, either way, by Student's t; 1 for none at all.

    >>> p_values(np.array([4.30265273, 0.0]), Error(np.array([1.0, 0.0]), np.array([2.0, 2.0]))).round(6)
    array([0.05, 1.  ])
    """
    from scipy import special

    away = np.abs(distances)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = 2 * special.stdtr(error.freedom, -away / error.standard)
    return np.where(away < 1e-12, 1.0, found)


def rates(hits: Hits, *, widened: float = 1.0) -> list[Interval]:
    """The interval of each rate, on the logit scale, so that it stays in [0, 1].

    Of all hits, or none, there is no spread to estimate: Wilson's interval over the images; and of one seed too.

    :param hits: (rates, seeds, images).
    :param widened: what the standard errors are multiplied by.

    >>> rates(np.ones((1, 3, 100), bool))
    [Interval(mean=1.0, low=0.963006..., high=1.0)]
    """
    _, seeds, images = hits.shape
    share = hits.mean(axis=(1, 2))
    found = wilson_intervals(share.tolist(), images)
    spread = (share > 0) & (share < 1)
    if seeds > 1 and spread.any():
        inner = share[spread]
        half = widened * np.concatenate([margin(crossed_error(block)) for block in _blocks(hits[spread])])
        with np.errstate(over="ignore"):
            odds, factor = inner / (1 - inner), np.exp(half / (inner * (1 - inner)))
        low, high = odds / factor / (1 + odds / factor), 1 / (1 + 1 / (odds * factor))
        for place, *bounds in zip(np.flatnonzero(spread).tolist(), low.tolist(), high.tolist(), strict=True):
            found[place] = Interval(found[place].mean, *bounds)
    return found


def differences(sets: Hits) -> list[Effect]:
    """The mean rate of the first half of the sets less that of the second, tested against 0, cut to [−1, 1].

    :param sets: (differences, sets, seeds, images): the same seeds and images, in the same order.

    >>> equal = np.ones((3, 50), bool)
    >>> differences(np.array([[equal, equal]]))[0][:4]
    (0.0, 0.0, 0.0, 1.0)
    """
    found: list[Effect] = []
    half = sets.shape[1] // 2
    for block in _blocks(sets):
        rest = block[:, half:].sum(axis=1, dtype=np.int16)
        tables = (block[:, :half].sum(axis=1, dtype=np.int16) - rest) / half
        means, squares = tables.mean(axis=(1, 2)), _mean_squares(tables)
        error = _error(squares, *tables.shape[1:])
        width = margin(error)
        low, high = np.maximum(means - width, -1), np.minimum(means + width, 1)
        parts = _parts(means, squares, *tables.shape[1:])
        found += _effects(means, low, high, p_values(means, error), parts=parts)
    return found


def ratios(sets: Hits) -> list[Effect]:
    """The rate of the first set over that of the second, tested against 1, on the logarithmic scale.

    Of four sets, the quotient of the first two over that of the last two. No interval where one of the rates is 0.

    :param sets: (ratios, 2 or 4, seeds, images).

    >>> both = np.arange(200).reshape(1, 2, 1, 100) % 2 == 0
    >>> ratios(both)
    [Effect(mean=1.0, low=1.0, high=1.0, p_value=1.0, parts=None)]
    """
    found: list[Effect] = []
    signs = np.array([1.0, -1.0, -1.0, 1.0])[: sets.shape[1]]
    for block in _blocks(sets):
        shares = block.mean(axis=(2, 3))
        with np.errstate(divide="ignore", invalid="ignore"):
            weights, logs = signs / shares, np.log(shares) @ signs
            usable = np.isfinite(weights).all(axis=1)
            weights = np.where(usable[:, None], weights, 0)
            tables = np.zeros((len(block), *sets.shape[2:]))
            for weight, hits in zip(weights.T, np.moveaxis(block, 1, 0), strict=True):
                tables += weight[:, None, None] * hits
            squares = _mean_squares(tables)
            error = _error(squares, *tables.shape[1:])
            width = np.where(np.isfinite(error.standard), margin(error), np.inf)
            means = np.prod(shares**signs, axis=1)
            bounds = [np.where(usable, means * np.exp(way * width), np.nan) for way in (-1, 1)]
        parts = _parts(logs, squares, *tables.shape[1:])
        found += _effects(means, *bounds, np.where(usable, p_values(logs, error), np.nan), parts=parts)
    return found


def query_fraction(curve: Hits, target: Hits, budgets: Sequence[int]) -> Effect:
    """The fraction of the largest budget at which a curve reaches a rate, tested against 1.

    The interval holds every fraction at which curve and target cannot be told apart; its upper end is None where that
    is so of the whole budget. The mean is None where the rate is not reached: the p value is then that of never
    reaching it.

    :param curve: (budgets, seeds, images).
    :param target: (seeds, images): hits of what is to be reached.
    :param budgets: ascending, two or more.

    >>> rng = np.random.default_rng(0)
    >>> draws = rng.random((3, 1000))
    >>> fraction = query_fraction(np.stack([draws < 0.5, draws < 0.9]), draws < 0.7, [100, 200])
    >>> round(fraction.mean, 2), fraction.p_value < 0.05
    (0.74, True)
    """
    _, seeds, images = curve.shape
    shares, level = curve.mean(axis=(1, 2)), target.mean()
    gaps = curve.astype(np.float64) - target
    # between two budgets the gap is linear, and so its mean squares are quadratic: known from three points
    ends, middles = _mean_squares(gaps), _mean_squares((gaps[:-1] + gaps[1:]) / 2)
    steps = np.arange(_STEPS) / _STEPS
    parts = np.array([(1 - steps) * (1 - 2 * steps), steps * (2 * steps - 1), 4 * steps * (1 - steps)])
    squares = _MeanSquares(*(_along(parts, end, middle) for end, middle in zip(ends, middles, strict=True)))
    error = _error(squares, seeds, images)
    straight = np.array([1 - steps, steps])
    gap, place = (
        np.append(np.stack([each[:-1], each[1:]], axis=1) @ straight, each[-1])
        for each in (shares - level, np.asarray(budgets, dtype=np.float64))
    )
    fractions, width = place / place[-1], margin(error)
    reached = queries_to_reach(float(level), budgets, shares.tolist())
    likely = p_values(gap, error)
    (of_last,) = _parts(gap[-1:], _MeanSquares(*(each[-1:] for each in ends)), seeds, images)
    if reached is None:
        return Effect(None, None, None, float(likely.max()), of_last)
    mean = reached / budgets[-1]
    at = int(np.searchsorted(fractions, mean))
    inside = np.insert(width - np.abs(gap), at, np.interp(mean, fractions, width))
    fractions = np.insert(fractions, at, mean)
    possible = np.flatnonzero(inside >= 0)
    low = _crossing(fractions, inside, int(possible[0]), -1)
    high = _crossing(fractions, inside, int(possible[-1]), 1)
    return Effect(mean, low, high, float(likely[-1]) if gap[-1] > 0 else 1.0, of_last)


def _crossing(places: Floats, inside: Floats, last: int, way: int) -> float | None:
    """Where, from the last place that is inside one way, the straight line leaves; None beyond the largest."""
    after = last + way
    if after == len(places):
        return None
    if after < 0:
        return float(places[0])
    share = inside[last] / (inside[last] - inside[after])
    return float(places[last] + share * (places[after] - places[last]))


def _along(parts: Floats, ends: Floats, middles: Floats) -> Floats:
    """The quadratic through the ends and the middle of every segment, at the steps, and at the last end."""
    within = np.stack([ends[:-1], ends[1:], middles], axis=1) @ parts
    return np.append(np.maximum(within, 0), ends[-1])


def over_seeds(values: Sequence[float], bounds: tuple[float, float] | None = None) -> Effect:
    """The mean of differences of which only one value a seed is known, by Student's t, tested against 0.

    >>> over_seeds([0.1, 0.2, 0.3]).low < 0 < over_seeds([0.1, 0.11, 0.12]).low
    True
    """
    (interval,) = mean_intervals([list(values)], bounds)
    if interval.low is None:
        return Effect(*interval, None)
    numbers = np.asarray(values, dtype=np.float64)
    error = Error(np.array([numbers.std(ddof=1) / math.sqrt(len(numbers))]), np.array([len(numbers) - 1.0]))
    parts = Parts(abs(interval.mean), float(numbers.var(ddof=1)), 0.0, 2)
    return Effect(*interval, float(p_values(np.array([interval.mean]), error)[0]), parts)


def best_of(attackers: Hits) -> Interval:
    """The rate of the best attacker, each seen where it was not chosen: it does not gain from being the largest.

    Each seed and half of the images is measured by the attacker who did best on all other seeds and the other half (on
    the other half alone, if there is one seed). Where that is always the same one, this is simply its rate. Where it is
    not, the parts depend on each other, as those who are measured in one choose in the next: the variance is made
    larger as Nadeau and Bengio (Inference for the Generalization Error, 2003) do for cross-validation.

    :param attackers: (attackers, seeds, images).

    >>> one, other = np.zeros((1, 100), bool), np.ones((1, 100), bool)
    >>> best_of(np.stack([one, other]))
    Interval(mean=1.0, low=0.963006..., high=1.0)
    """
    _, seeds, images = attackers.shape
    half = np.arange(images) % 2
    counts = np.stack([attackers[:, :, half != side].sum(axis=2) for side in (0, 1)], axis=2)
    others = counts.sum(axis=1, keepdims=True) - counts if seeds > 1 else counts
    chosen = others.argmax(axis=0)
    hits = attackers[chosen[:, half], np.arange(seeds)[:, None], np.arange(images)]
    steady = seeds == 1 or (chosen == chosen[0, 0]).all()
    return rates(hits[None], widened=1.0 if steady else math.sqrt(1 + seeds / (seeds - 1)))[0]


def best_of_rates(attackers: Sequence[Sequence[float]]) -> list[float]:
    """As :func:`best_of`, where only the rate of each seed is known; of one seed it is the largest, uncorrected.

    >>> best_of_rates([[0.9, 0.1, 0.1], [0.5, 0.5, 0.5]])
    [0.5, 0.1, 0.1]
    """
    given = np.asarray(attackers, dtype=np.float64)
    others = given.sum(axis=1, keepdims=True) - given if given.shape[1] > 1 else given
    chosen = others.round(12).argmax(axis=0)
    return [float(given[attacker, seed]) for seed, attacker in enumerate(chosen)]


def _blocks(sets: Hits) -> list[Hits]:
    """The sets in parts of few cells, along the first axis."""
    step = max(1, _CELLS // max(math.prod(sets.shape[1:]), 1))
    return [sets[start : start + step] for start in range(0, len(sets), step)]


def _effects(*columns: Floats, parts: Sequence[Parts | None]) -> list[Effect]:
    """A row for each place of the columns; None for what is no number."""
    listed = [[value if math.isfinite(value) else None for value in column.tolist()] for column in columns]
    rows = zip(*listed, parts, strict=True)
    return [
        Effect(mean, low, high, p, of) if None not in (low, high, p) else Effect(mean, None, None, None)
        for mean, low, high, p, of in rows
    ]
