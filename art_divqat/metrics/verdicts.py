"""Verdicts on effects that were tested together, by Holm's correction, and how many seeds would decide the others."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from art_divqat.metrics.estimator import Effect, Parts
from art_divqat.metrics.intervals import CONFIDENCE

Verdict = Literal["higher", "lower", "cannot tell"]
SIGNIFICANCE = 1 - CONFIDENCE
# what is planned for, and the most seeds that a plan names
POWER, MOST_SEEDS = 0.8, 100
_NODES = 512
# comparisons that are planned in one go
_AT_ONCE = 4_096


def judge(effects: Sequence[Effect], neutral: float, significance: float = SIGNIFICANCE) -> list[Verdict]:
    """The verdict on each of the comparisons that were tested together, by Holm's correction.

    The probability that any of them is false is at most `significance`, .05 if not given.

    `higher` or `lower` than `neutral`, where the corrected p value is below it. With one comparison that is where its
    interval leaves `neutral` out; with more an interval may leave it out and the verdict be `cannot tell`.

    >>> alone = Effect(1.2, 1.01, 1.4, 0.04)
    >>> judge([alone], 1.0), judge([alone, Effect(1.0, 0.8, 1.2, 0.9)], 1.0)
    (['higher'], ['cannot tell', 'cannot tell'])
    """
    corrected = holm([each.p_value for each in effects])
    return [
        "cannot tell"
        if p_value is None or p_value >= significance
        # a fraction that is never reached is larger than every budget
        else "higher"
        if each.mean is None or each.mean > neutral
        else "lower"
        for each, p_value in zip(effects, corrected, strict=True)
    ]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's corrected p values, in the same order; one that is None counts for no test.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    known = sorted((p_value, place) for place, p_value in enumerate(p_values) if p_value is not None)
    found: list[float | None] = [None] * len(p_values)
    worst = 0.0
    for number, (p_value, place) in enumerate(known):
        worst = max(worst, min(1.0, (len(known) - number) * p_value))
        found[place] = worst
    return found


def seeds_needed(parts: Sequence[Parts], level: float = SIGNIFICANCE) -> list[float]:
    """About how many seeds tell each effect from none with 80 % power, if it is as large as estimated.

    The smallest n with distance ≥ (t(1 − level/2) + t(.8)) · √(of_seeds / n + of_images), with Student's quantiles of
    the degrees of freedom that :func:`art_divqat.metrics.estimator.crossed_error` would have; infinite where more than
    100 are needed, as it is where the images alone hide the effect. The variance is as uncertain as a few seeds make
    it: this is an order of magnitude, not a promise.

    :param level: of the test, two-sided; after Holm's correction .05 over the number of comparisons yet undecided.

    >>> seeds_needed([Parts(0.05, 0.03**2, of_images, 500) for of_images in (0.0, 0.016**2, 0.02**2)])
    [5.0, 17.0, inf]
    """
    numbers = np.arange(2, MOST_SEEDS + 1)
    found: list[float] = []
    for start in range(0, len(parts), _AT_ONCE):
        distance, of_seeds, of_images, images = np.array(parts[start : start + _AT_ONCE]).T[:, :, None]
        varying = of_seeds / numbers
        variance = np.maximum(varying + of_images, np.finfo(float).tiny)
        by_freedom = (varying / (numbers - 1) + of_images / (images - 1)) / variance
        needed = np.interp(by_freedom, np.linspace(0, 1, _NODES + 1), _distances(level)) * np.sqrt(variance)
        enough = distance >= np.maximum(needed, 1e-12)
        found += np.where(enough.any(axis=1), numbers[enough.argmax(axis=1)], np.inf).tolist()
    return found


@functools.lru_cache(maxsize=64)
def _distances(level: float) -> NDArray[np.float64]:
    """Standard errors between no effect and one that is found with the power, over 1/freedom."""
    from scipy import special

    freedom = 1 / np.maximum(np.linspace(0, 1, _NODES + 1), 1e-12)
    found: NDArray[np.float64] = special.stdtrit(freedom, 1 - level / 2) + special.stdtrit(freedom, POWER)
    return found
