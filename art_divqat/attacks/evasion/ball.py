"""The L∞ ball of radius ε around images in [0, 1]: its checks and its exact float32 bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._validation import check_float, check_int
from art_divqat.errors import UserError


def check_epsilon(owner: object, epsilon: Any, *, zero: bool = True) -> float:
    """Return ε as a float in [0, 1] (or (0, 1]), or say that pixels are in [0, 1] here, not 0–255.

    :raises UserError: for anything that is not a number in that interval.

    >>> check_epsilon("PGD", 8)
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: The 'epsilon' parameter of PGD must be a float in [0, 1], because images are in \
[0, 1]; for 8 of 255 grey levels write 8 / 255. Got 8 instead.
    """
    try:
        return check_float(owner, "epsilon", epsilon, 0, 1, closed="both" if zero else "right")
    except UserError as error:
        if not isinstance(epsilon, (int, float)) or isinstance(epsilon, bool) or not 1 < epsilon <= 255:
            raise
        advice = f", because images are in [0, 1]; for {epsilon:g} of 255 grey levels write {epsilon:g} / 255. Got"
        raise UserError(str(error).replace(". Got", advice, 1)) from None


def default_step_size(epsilon: float, steps: int) -> float:
    """min(ε, 2.5 ε / steps): from any start in the ball, any corner of it can be reached, with a quarter to spare.

    Madry et al. (ICLR 2018) and their successors use this rule. The farthest corner from a random start is 2 ε away.

    >>> default_step_size(0.2, 20)
    0.025
    """
    return min(epsilon, 2.5 * epsilon / steps)


def check_steps(owner: object, epsilon: float, steps: int, step_size: float | None) -> float:
    """The step size to use.

    :raises UserError: if `steps` steps of it cannot reach the edge of the ball.

    >>> check_steps("PGD", 0.05, 4, 2 / 255)
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: 4 steps of 0.00784314 reach at most 0.0313725 and never the edge of the ball of \
radius 0.05: take at least 7 steps, or a step of at least 0.0125.
    """
    check_int(owner, "steps", steps, 1)
    if step_size is None:
        return default_step_size(epsilon, steps)
    check_float(owner, "step_size", step_size, 0, closed="neither")
    reach = steps * step_size
    if reach < epsilon * (1 - 1e-6):
        raise UserError(
            f"{steps} steps of {step_size:g} reach at most {reach:g} and never the edge of the ball of radius "
            f"{epsilon:g}: take at least {int(np.ceil(epsilon / step_size - 1e-9))} steps, or a step of at least "
            f"{epsilon / steps:g}."
        )
    return float(step_size)


def linf_bounds(x: NDArray[np.float32], epsilon: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The smallest and largest float32 images with |x' − x| ≤ ε and 0 ≤ x' ≤ 1, exactly and not only to rounding.

    :param x: images in [0, 1] of any shape.
    :param epsilon: radius in [0, 1].

    >>> low, high = linf_bounds(np.array([0.1, 0.9], np.float32), 0.3)
    >>> bool((np.abs(high.astype(float) - np.array([0.1, 0.9], np.float32).astype(float)) <= 0.3).all())
    True
    """
    exact_low, exact_high = x.astype(np.float64) - epsilon, x.astype(np.float64) + epsilon
    low, high = exact_low.astype(np.float32), exact_high.astype(np.float32)
    low = np.where(low < exact_low, np.nextafter(low, np.float32(2)), low)
    high = np.where(high > exact_high, np.nextafter(high, np.float32(-2)), high)
    return np.clip(low, 0, 1), np.clip(high, 0, 1)


def project(x_adversarial: NDArray[Any], x: NDArray[np.float32], epsilon: float) -> NDArray[np.float32]:
    """The nearest float32 images to `x_adversarial` in the ball around `x` and in [0, 1]."""
    low, high = linf_bounds(x, epsilon)
    return np.clip(np.asarray(x_adversarial, np.float32), low, high)
