"""Looks: after how many seeds a run with `seeds: auto` is judged, and at which level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from art_divqat.plan.config import ResolvedConfig

_FIRST, _SECOND = 3, 5


def looks(most: int) -> tuple[int, ...]:
    """3, 5 and then always the sum of the last two, up to `most`, which is the last; known before anything is run.

    >>> looks(20), looks(5), looks(2)
    ((3, 5, 8, 13, 20), (3, 5), (2,))
    """
    found, following = [], (_FIRST, _SECOND)
    while following[0] < most:
        found.append(following[0])
        following = (following[1], sum(following))
    return (*found, most)


def looks_of(config: ResolvedConfig) -> tuple[int, ...]:
    """After how many seeds a run is judged: once, if their number was given."""
    return looks(config.max_seeds) if config.seeds == "auto" else (config.seeds,)


def number_of_looks(config: Mapping[str, Any]) -> int:
    """As :func:`looks_of`, how many, from a configuration as results have it: the level is divided by it."""
    return len(looks(config["max_seeds"])) if config.get("seeds") == "auto" else 1


def at_look(config: ResolvedConfig, seeds: int) -> ResolvedConfig:
    """The configuration with a number of seeds instead of `auto`: the cells of its first looks are among its own."""
    return config.model_copy(update={"seeds": seeds})


def as_far_as(config: ResolvedConfig, begun: int) -> ResolvedConfig:
    """The configuration at the first look that takes in all seeds that were begun."""
    every = looks_of(config)
    return at_look(config, next((seeds for seeds in every if seeds >= begun), every[-1]))
