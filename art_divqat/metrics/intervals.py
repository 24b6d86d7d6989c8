"""95 % intervals of single numbers: Student's t over seeds, and Wilson's of a rate over test images.

What is known of seeds and images together is estimated in `metrics/estimator.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from art_divqat._validation import parameter_error

CONFIDENCE = 0.95


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
