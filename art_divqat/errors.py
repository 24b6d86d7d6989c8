"""Errors that a user can cause: one family of exceptions.

Each carries one line that names the value, what was expected, and what to do. The command line prints that line on
stderr and exits with 2; a traceback is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the caller gave cannot be used; the message says what, why and what to do instead."""


class QueryBudgetExceededError(UserError):
    """The call would have taken the victim over its query budget; it was refused whole, before the victim saw it."""


class InterruptedRunError(Exception):
    """The user stopped a run; what was finished is kept."""


class LostWorkerError(Exception):
    """The system killed a worker process twice, most likely for memory; what was finished is kept."""


class MissingExtraError(UserError, ImportError):
    """An optional dependency is needed for this and is not installed; the message names the extra."""


class AccuracyLossWarning(UserWarning):
    """Training a protected or quantized classifier cost accuracy past the tolerance; the message names the remedy."""


class LossMismatchWarning(UserWarning):
    """A trainer's loss is not the one that the classifier was built for; the message names both and the remedy."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Say which known names are near an unknown one, as the end of a sentence.

    >>> suggest("resnet2O", ["resnet20", "vgg11", "lenet5"])
    'did you mean resnet20?'
    >>> suggest("zzz", ["b", "a"])
    'known are a, b.'
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known are {', '.join(names)}."


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is in no registry.

    >>> str(unknown_name("attack", "knokoff", ["knockoff", "copycat"]))
    "Unknown attack 'knokoff': did you mean knockoff?"
    """
    return UserError(f"Unknown {kind} {name!r}: {suggest(name, known)}")
