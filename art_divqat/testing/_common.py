"""Shared helpers of the checks: a violation as one sentence, the global random states, a small data set."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from art_divqat.errors import UserError

if TYPE_CHECKING:
    from art_divqat.data import Dataset


def require(holds: bool, subject: str, broken: str) -> None:
    """Say what a subject does against its contract.

    :raises AssertionError: unless it holds.

    >>> require(False, "The pool", "gave 3 images and was asked for 5")
    Traceback (most recent call last):
    ...
    AssertionError: The pool gave 3 images and was asked for 5
    """
    if not holds:
        raise AssertionError(f"{subject} {broken}")


def random_states() -> tuple[Any, Any, Any]:
    """The global random states of Python, numpy and torch."""
    import torch

    return random.getstate(), np.random.get_state(), torch.random.get_rng_state().clone()


def same_states(before: tuple[Any, Any, Any], after: tuple[Any, Any, Any]) -> bool:
    """Whether two of :func:`random_states` are equal."""
    numpy_same = all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    return before[0] == after[0] and numpy_same and bool((before[2] == after[2]).all())


@contextmanager
def undisturbed(subject: str) -> Iterator[None]:
    """The global random states must be after the block what they were before it.

    :raises AssertionError: if they are not.
    """
    states = random_states()
    yield
    require(same_states(states, random_states()), subject, "disturbed the global random state: draw from the seed")


@contextmanager
def fitting(subject: str) -> Iterator[None]:
    """What a subject gave must be what the package takes.

    :raises AssertionError: for a `UserError` in the block, with its sentence.
    """
    try:
        yield
    except UserError as error:
        raise AssertionError(f"{subject} breaks its contract: {error}") from error


@functools.cache
def small_digits() -> Dataset:
    """At most 300 training and 300 test images of scikit-learn's digits, split."""
    from art_divqat.data import load_dataset

    return load_dataset("digits", limit=300)
