"""Completion of names in the shell: victims, attacks, data sets and whatever else `art-divqat list` lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def completed(*kinds: str) -> Callable[[str], Iterable[tuple[str, str]]]:
    """What completes an option whose value is a name of one of these kinds, or several with commas between.

    >>> [name for name, _ in completed("attacks")("knockoff,cop")]
    ['knockoff,copycat']
    """

    def complete(incomplete: str) -> Iterable[tuple[str, str]]:
        from art_divqat.cli.names import names_of

        before, comma, begun = incomplete.rpartition(",")
        for kind in kinds:
            for name, summary in names_of(kind).items():
                # npz:PATH and the like are forms, not names
                if name.startswith(begun) and not any(letter.isupper() for letter in name):
                    yield f"{before}{comma}{name}", summary

    return complete


def completed_kinds(incomplete: str) -> list[str]:
    """What completes the argument of `art-divqat list`."""
    from art_divqat.cli.names import KINDS

    return [kind for kind in KINDS if kind.startswith(incomplete)]
