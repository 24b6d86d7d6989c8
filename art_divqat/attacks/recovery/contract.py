"""Types of a recovery: what it is built from, and its registry entry; a plug-in's author imports them.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from art_divqat.errors import UserError
from art_divqat.parameters import Parameters
from art_divqat.registry import load_target

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from art_divqat.attacks.recovery.answers import Recovery

    Defence: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class RecoveryRequest:
    """What a recovery is built from: the classes, what the thief knows of the defence, a seed and its parameters.

    :param nb_classes: the victim's.
    :param known_defence: clean rows in, served rows out; None if the thief can rebuild none.
    :param seed: decides every draw of the recovery.
    :param values: the recovery's parameters, every one with a value.
    """

    nb_classes: int
    known_defence: Defence | None
    seed: int
    values: Mapping[str, Any]

    def defence(self, name: str) -> Defence:
        """The known defence.

        :param name: the recovery's, for the message.
        :raises UserError: if the thief knows none.
        """
        if self.known_defence is None:
            raise UserError(
                f"Recovery {name!r} needs a defence that the thief can rebuild, one that depends on the answer alone. "
                "This victim has none; use recovery=labels or recovery=average."
            )
        return self.known_defence


@dataclass(frozen=True)
class PublicDefence:
    """One link of a victim's defence, as far as its name tells a thief.

    :param name: as the table of defences has it.
    :param rebuildable: whether it depends on the answer alone, so that a thief can run it at home.
    :param invertible: whether the clean answer can be solved for, given its parameters.
    :param misinforms: whether it answers from a network that was trained to be wrong.
    """

    name: str
    rebuildable: bool
    invertible: bool = False
    misinforms: bool = False


def anything(links: Sequence[PublicDefence]) -> bool:
    """Apply to every defence, and to none."""
    del links
    return True


def rebuildable(links: Sequence[PublicDefence]) -> bool:
    """Apply to a defence all of whose links a thief can run at home.

    >>> rebuildable([PublicDefence("rounding", True)]), rebuildable([])
    (True, False)
    """
    return bool(links) and all(link.rebuildable for link in links)


def once(values: Mapping[str, Any]) -> int:
    """Ask each image once."""
    del values
    return 1


@dataclass(frozen=True)
class RecoveryEntry:
    """One recovery: a line on it, its code, its parameters, and what it needs and does.

    :param summary: one line.
    :param build: `"package.module:function"`, imported at first use, or the function, which makes the recovery.
    :param parameters: with these the attack's name may be given `recovery=NAME,parameter=value`.
    :param whole_rows: whether it needs every probability of an answer.
    :param undoes: whether it does something about a defence, and does not merely throw away what the defence changed.
    :param applies_to: whether it works on a chain of defences, given from the victim outwards.
    :param repeats: how often each image is asked, of the parameters; the recovery's `repeats`.
    """

    summary: str
    build: str | Callable[[RecoveryRequest], Recovery]
    parameters: Parameters = field(default_factory=dict)
    whole_rows: bool = False
    undoes: bool = True
    applies_to: Callable[[Sequence[PublicDefence]], bool] = anything
    repeats: Callable[[Mapping[str, Any]], int] = once

    def load(self) -> Callable[[RecoveryRequest], Recovery]:
        """The recovery's code; imported now if it is named."""
        code: Callable[[RecoveryRequest], Recovery] = load_target(self.build)
        return code
