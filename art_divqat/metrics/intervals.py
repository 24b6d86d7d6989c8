"""95 % intervals: over seeds, over test images, and for ratios and differences of paired measurements."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from art_divqat._validation import parameter_error

CONFIDENCE = 0.95
RESAMPLES = 2_000
Means = NDArray[np.floating[Any]]
Statistic = Callable[[Means, Means], Means]
Compare = Callable[[Means], Means]
# sets resampled in one product, and comparisons made in one go: what stays in a cache
_BLOCK, _COMPARED = 256, 32
# resamples are float32: half the time, and far below what 2,000 of them can tell
_DECIMALS = 6


class Interval(NamedTuple):
    """An estimate and the bounds of its interval; the bounds are None where nothing can be said."""

    mean: float
    low: float | None
    high: float | None


def wilson_interval(rate: float, images: int, confidence: float = CONFIDENCE) -> Interval:
    """The Wilson score interval of a rate measured on so many images.

    :raises UserError: for a rate outside [0, 1].

    >>> wilson_interval(0.5, 100)
    Interval(mean=0.5, low=0.4038315..., high=0.5961684...)
    """
    return wilson_intervals([rate], images, confidence)[0]


def wilson_intervals(rates: Sequence[float], images: int, confidence: float = CONFIDENCE) -> list[Interval]:
    """:func:`wilson_interval` of many rates, all on the same number of images.

    >>> [interval.low for interval in wilson_intervals([0.0, 1.0], 100)]
    [0.0, 0.963006...]
    """
    given = np.asarray(rates, dtype=np.float64)
    if not ((given >= 0) & (given <= 1)).all():
        wrong = given[~((given >= 0) & (given <= 1))][0]
        raise parameter_error("wilson_interval", "rate", "a float in [0, 1]", float(wrong))
    # scipy.stats has it behind a binomial test, whose p value costs a hundred times more than the interval
    hits = np.rint(given * images)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = hits + z**2 / 2
    half = z * np.sqrt(hits * (images - hits) / images + z**2 / 4)
    low = np.where(hits == 0, 0.0, (centre - half) / (images + z**2))
    high = np.where(hits == images, 1.0, (centre + half) / (images + z**2))
    return [Interval(*each) for each in zip(given.tolist(), low.tolist(), high.tolist(), strict=True)]


@functools.lru_cache(maxsize=1024)
def _student(freedom: int) -> float:
    # a fifth of a second, which a run of one seed need not wait for
    from scipy import special

    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))


def mean_interval(values: Sequence[float], bounds: tuple[float, float] | None = (0.0, 1.0)) -> Interval:
    """Student's t interval of the mean over seeds, cut to `bounds`; no bounds from a single value.

    >>> mean_interval([0.4, 0.5, 0.6])
    Interval(mean=0.5, low=0.2515862..., high=0.7484137...)
    """
    if len(values) == 1:
        return Interval(float(values[0]), None, None)
    return mean_intervals([values], bounds)[0]


def mean_intervals(
    samples: Sequence[Sequence[float]], bounds: tuple[float, float] | None = (0.0, 1.0)
) -> list[Interval]:
    """:func:`mean_interval` of many samples, all of one size.

    >>> mean_intervals([[0.4, 0.5, 0.6], [1.0, 1.0, 1.0]])[1]
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    values = np.asarray(samples, dtype=np.float64)
    means, size = values.mean(axis=1), values.shape[1]
    if size < 2:
        return [Interval(mean, None, None) for mean in means.tolist()]
    half = _student(size - 1) * values.std(axis=1, ddof=1) / np.sqrt(size)
    low, high = means - half, means + half
    if bounds is not None:
        low, high = np.maximum(low, bounds[0]), np.minimum(high, bounds[1])
    return [Interval(*each) for each in zip(means.tolist(), low.tolist(), high.tolist(), strict=True)]


def paired_bootstrap(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    statistic: Statistic,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The percentile interval of statistic(mean of first, mean of second), resampling seeds and images in pairs.

    Each resample draws seeds with replacement and images with replacement, the same for both sides, so what the two
    sides share cancels. With few seeds the interval leans on the images; it says nothing of seeds that were not run.

    :param first: (seeds, images): whether each image counts (is right, agrees), one row a seed.
    :param second: the same shape, the same seeds and images in the same order.
    :param statistic: of two arrays of means, elementwise; entries that are not finite are left out.

    >>> ones = np.ones((3, 50), bool)
    >>> paired_bootstrap(ones, ones, np.divide)
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    drawn = resampled_means([first, second], resamples=resamples, seed=seed)
    return compared_means([first, second], drawn, [((0, 1), lambda means: statistic(means[0], means[1]))])[0]


def compared_means(
    sets: Sequence[NDArray[np.bool_]],
    drawn: NDArray[np.float32],
    asked: Sequence[tuple[tuple[int, ...], Compare]],
) -> list[Interval]:
    """The percentile intervals of many comparisons of sets that were resampled once.

    :param sets: each (seeds, images).
    :param drawn: their resampled means, as :func:`resampled_means` gives them.
    :param asked: the places of the sets of a comparison, all of one shape, and what it makes of their means, (sets, …).

    >>> half = np.arange(100).reshape(1, 100) % 2 == 0
    >>> compared_means([half], resampled_means([half]), [((0, 0), lambda means: means[0] / means[1])])
    [Interval(mean=1.0, low=1.0, high=1.0)]
    """
    means = np.array([np.count_nonzero(hits) / hits.size for hits in sets])
    alike: dict[tuple[Compare, int], list[int]] = {}
    for number, (places, compare) in enumerate(asked):
        alike.setdefault((compare, len(places)), []).append(number)
    found: list[Interval] = [Interval(np.nan, None, None)] * len(asked)
    for (compare, _), numbers in alike.items():
        for start in range(0, len(numbers), _COMPARED):
            block = numbers[start : start + _COMPARED]
            intervals = _percentiles(drawn, means, np.array([asked[n][0] for n in block]).T, compare)
            for number, interval in zip(block, intervals, strict=True):
                found[number] = interval
    return found


def resampled_means(
    sets: Sequence[NDArray[np.bool_]], *, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float32]:
    """:func:`bootstrap_means` of sets of any shapes, (sets, resamples); sets of one shape share their resamples.

    :param sets: each (seeds, images).

    >>> resampled_means([np.ones((2, 3), bool), np.ones((1, 5), bool)], resamples=2).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for place, hits in enumerate(sets):
        by_shape.setdefault(hits.shape, []).append(place)
    drawn = np.empty((len(sets), resamples), np.float32)
    for places in by_shape.values():
        for start in range(0, len(places), _BLOCK):
            block = places[start : start + _BLOCK]
            drawn[block] = bootstrap_means(np.stack([sets[i] for i in block]), resamples=resamples, seed=seed)
    return drawn


def _percentiles(
    drawn: NDArray[np.float32],
    means: NDArray[np.float64],
    places: NDArray[np.int64],
    compare: Compare,
) -> list[Interval]:
    with np.errstate(divide="ignore", invalid="ignore"):
        values = compare(drawn[places])
        centres = compare(means[places]).tolist()
    finite = np.isfinite(values)
    whole = finite.all(axis=1)
    bounds: NDArray[np.float64] = np.full((len(values), 2), np.nan)
    if whole.all():
        bounds = _central(values)
    elif whole.any():
        bounds[whole] = _central(values[whole])
    for row in np.flatnonzero(~whole):
        left = values[row][finite[row]]
        if len(left) >= values.shape[1] // 2:
            bounds[row] = _central(left[None])[0]
    return [
        Interval(mean, None, None) if math.isnan(low) else Interval(mean, low, high)
        for mean, (low, high) in zip(centres, bounds.round(_DECIMALS).tolist(), strict=True)
    ]


def _central(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The two quantiles that hold CONFIDENCE of each row between them, (rows, 2), as numpy's `linear` ones."""
    values.sort(axis=1)  # half the time of the partition in np.quantile
    tail, last = (1 - CONFIDENCE) / 2, values.shape[1] - 1
    found = np.empty((len(values), 2))
    for side, share in enumerate((tail, 1 - tail)):
        below = math.floor(share * last)
        part = share * last - below
        low, high = (values[:, each].astype(np.float64) for each in (below, min(below + 1, last)))
        found[:, side] = low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)
    return found


def bootstrap_means(hits: NDArray[np.bool_], *, resamples: int, seed: int) -> NDArray[np.float32]:
    """The mean of every set of hits in every resample of seeds and images, (sets, resamples).

    :param hits: (sets, seeds, images); a resample takes the same seeds and images of every set.

    >>> bootstrap_means(np.ones((2, 3, 4), bool), resamples=2, seed=0).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    sets, seeds, images = hits.shape
    of_seeds, of_images = _weights(seeds, images, resamples, seed)
    # Counts of counts: whole numbers below 2²⁴, exact in float32 in whatever order they are added.
    per_seed = hits.reshape(sets * seeds, images).astype(np.float32) @ of_images.T
    if seeds > 1:
        counts = per_seed.reshape(sets, seeds, resamples)
        per_seed = counts[:, 0] * of_seeds[:, 0]
        for number in range(1, seeds):
            per_seed += counts[:, number] * of_seeds[:, number]
    per_seed /= np.float32(seeds * images)
    return per_seed


@functools.lru_cache(maxsize=4)
def _weights(seeds: int, images: int, resamples: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How often each resample draws each seed and each image; kept, for a run asks for the same ones many times."""
    rng = np.random.default_rng(seed)
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).astype(np.float32)
    of_images = np.empty((resamples, images), dtype=np.float32)
    for row in range(resamples):
        of_images[row] = np.bincount(rng.integers(images, size=images), minlength=images)
    return of_seeds, of_images
