"""Progress callbacks: bind a callback for named phases to one phase."""

from __future__ import annotations

import functools

from art_divqat._types import PhaseProgress, Progress


def phase(progress: PhaseProgress | None, description: str) -> Progress | None:
    """A callback for one phase of the work, or None if nobody watches.

    >>> phase(print, "training")(1, 5)
    training 1 5
    """
    return None if progress is None else functools.partial(progress, description)
