"""95 % intervals: over seeds, over test images, and for ratios and differences of paired measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from art_divqat._validation import check_float

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """An estimate and the bounds of its interval; the bounds are None where nothing can be said."""

    mean: float
    low: float | None
    high: float | None


def wilson_interval(rate: float, images: int, confidence: float = CONFIDENCE) -> Interval:
    """The Wilson score interval of a rate measured on so many images.

    >>> wilson_interval(0.5, 100)
    Interval(mean=0.5, low=0.4038315..., high=0.5961684...)
    """
    check_float("wilson_interval", "rate", rate, 0, 1)
    interval = stats.binomtest(round(rate * images), images).proportion_ci(confidence, method="wilson")
    return Interval(rate, float(interval.low), float(interval.high))


def mean_interval(values: Sequence[float], bounds: tuple[float, float] | None = (0.0, 1.0)) -> Interval:
    """Student's t interval of the mean over seeds, cut to `bounds`; no bounds from a single value.

    >>> mean_interval([0.4, 0.5, 0.6])
    Interval(mean=0.5, low=0.2515862..., high=0.7484137...)
    """
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) < 2:
        return Interval(mean, None, None)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample)))
    low, high = mean - half, mean + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Interval(mean, low, high)


def paired_bootstrap(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    statistic: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
    *,
    resamples: int = 2_000,
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
    seeds, images = first.shape
    rng = np.random.default_rng(seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = float(statistic(np.array([first.mean()]), np.array([second.mean()]))[0])
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    means = np.empty((2, resamples))
    # in blocks: 2,000 resamples of 10,000 images at once would be 160 MB
    for start in range(0, resamples, 200):
        rows = slice(start, min(start + 200, resamples))
        of_images = rng.multinomial(images, np.full(images, 1 / images), size=rows.stop - start) / images
        for side, hits in enumerate((first, second)):
            means[side, rows] = (of_seeds[rows] * (of_images @ hits.T.astype(np.float64))).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = statistic(means[0], means[1])
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < resamples // 2:
        return Interval(estimate, None, None)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))
