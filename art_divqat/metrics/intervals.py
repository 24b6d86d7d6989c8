"""95 % intervals: over seeds, over test images, and for ratios and differences of paired measurements."""

from __future__ import annotations

import functools
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
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = float(statistic(np.array([first.mean()]), np.array([second.mean()]))[0])
        drawn = statistic(
            *(bootstrap_means(side[None], resamples=resamples, seed=seed)[:, 0] for side in (first, second))
        )
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < resamples // 2:
        return Interval(estimate, None, None)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))


def bootstrap_means(hits: NDArray[np.bool_], *, resamples: int, seed: int) -> NDArray[np.float64]:
    """The mean of every set of hits in every resample of seeds and images, (resamples, sets).

    :param hits: (sets, seeds, images); a resample takes the same seeds and images of every set.

    >>> bootstrap_means(np.ones((2, 3, 4), bool), resamples=5, seed=0).tolist()[0]
    [1.0, 1.0]
    """
    sets, seeds, images = hits.shape
    of_seeds, of_images = _weights(seeds, images, resamples, seed)
    # Counts of counts: whole numbers below 2²⁴, exact in float32 in whatever order they are added.
    per_seed = of_images @ hits.reshape(sets * seeds, images).T.astype(np.float32)
    weighted = of_seeds[:, None, :] * per_seed.reshape(resamples, sets, seeds).astype(np.float64)
    return weighted.sum(axis=2) / (seeds * images)


@functools.lru_cache(maxsize=4)
def _weights(seeds: int, images: int, resamples: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """How often each resample draws each seed and each image; kept, for a run asks for the same ones many times."""
    rng = np.random.default_rng(seed)
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).astype(np.float64)
    of_images = np.empty((resamples, images), dtype=np.float32)
    for row in range(resamples):
        of_images[row] = np.bincount(rng.integers(images, size=images), minlength=images)
    return of_seeds, of_images
