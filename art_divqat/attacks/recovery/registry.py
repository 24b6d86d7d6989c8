"""Registry of recoveries: resolve `recovery=` among an attack's parameters, and read `answers`.

Importing this module imports neither torch nor ART; building a recovery does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from art_divqat.attacks.recovery import parameters as declared
from art_divqat.attacks.recovery.contract import RecoveryEntry, RecoveryRequest, rebuildable
from art_divqat.errors import UserError
from art_divqat.registry import Registry

if TYPE_CHECKING:
    from art_divqat.attacks.recovery.contract import Defence

_BUILDERS = "art_divqat.attacks.recovery.builders"

RECOVERIES: Registry[RecoveryEntry] = Registry(
    "recovery",
    "recoveries",
    RecoveryEntry,
    {
        "average": RecoveryEntry(
            "ask every image several times and average, at that price",
            f"{_BUILDERS}:average",
            declared.AVERAGE,
            repeats=lambda values: int(values["repeats"]),
        ),
        "bayes": RecoveryEntry(
            "mean of the sampled answers whose defended version is near (ModelGuard's adaptive attack)",
            f"{_BUILDERS}:bayes",
            declared.BAYES,
            whole_rows=True,
            applies_to=rebuildable,
        ),
        "complement": RecoveryEntry(
            "believe the class that an answer avoids: what adaptive misinformation leaves of the right one",
            f"{_BUILDERS}:complement",
            whole_rows=True,
            applies_to=lambda links: any(link.misinforms for link in links),
        ),
        "dae": RecoveryEntry(
            "a restorer network trained on (answer, defended answer) pairs (D-DAE)",
            f"{_BUILDERS}:dae",
            declared.DAE,
            whole_rows=True,
            applies_to=rebuildable,
        ),
        "invert": RecoveryEntry(
            "solve the heuristic perturbation for the clean answer, given its beta and gamma",
            f"{_BUILDERS}:invert",
            declared.INVERT,
            whole_rows=True,
            applies_to=lambda links: [link.invertible for link in links] == [True],
        ),
        "labels": RecoveryEntry("believe only the top class", f"{_BUILDERS}:labels", undoes=False),
        "recentre": RecoveryEntry(
            "take away each class's usual level, over all images of a call: what tells DivQAT's answers apart",
            f"{_BUILDERS}:recentre",
            declared.RECENTRE,
            whole_rows=True,
        ),
        "top-k": RecoveryEntry(
            "believe only the k highest probabilities", f"{_BUILDERS}:top_k", declared.TOP_K, undoes=False
        ),
    },
)


def list_recoveries() -> dict[str, str]:
    """Every recovery with one line on it."""
    return dict(sorted(RECOVERIES.summaries().items()))


def undoes_a_defence(recovery: object) -> bool:
    """Whether a recovery of this name does something about a defence; one that is not known here does not.

    >>> undoes_a_defence("invert"), undoes_a_defence("labels"), undoes_a_defence(None), undoes_a_defence("nowhere")
    (True, False, False, False)
    """
    entry = RECOVERIES.find(recovery) if isinstance(recovery, str) else None
    return entry is not None and entry.undoes


def top_of(answers: str) -> int | None:
    """How many classes `answers` lets the attacker see: None for `soft`, 1 for `hard`, k for `top-k`.

    :raises UserError: for anything else.

    >>> top_of("soft"), top_of("hard"), top_of("top-3")
    (None, 1, 3)
    """
    if answers in ("soft", "hard"):
        return None if answers == "soft" else 1
    prefix, _, number = answers.partition("-")
    if prefix == "top" and number.isdecimal() and int(number) >= 1:
        return int(number)
    raise UserError(f"Unknown answers {answers!r}: use soft, hard or top-k with a number, such as top-3.")


def attackers_view(
    victim: Any, answers: str, recovery: str | None, values: Mapping[str, Any], known_defence: Defence | None, seed: int
) -> Any:
    """The victim as the attack sees it: metered, reduced to the answers that are used, then recovered.

    :raises UserError: for unknown answers or recovery, or a recovery that cannot work here.
    """
    from art_divqat.attacks.recovery.answers import Labels, RecoveredClassifier, TopK

    top = top_of(answers)
    if top is not None and top > victim.nb_classes:
        raise UserError(f"Answers {answers!r} ask for {top} classes; the victim has {victim.nb_classes}.")
    view = victim
    if answers == "hard":
        view = RecoveredClassifier(view, Labels())
    elif top is not None:
        view = RecoveredClassifier(view, TopK(top))
    if recovery is None:
        return view
    entry = RECOVERIES[recovery]
    if top is not None and entry.whole_rows:
        raise UserError(f"Recovery {recovery!r} works on whole rows of probabilities: use it with answers soft.")
    request = RecoveryRequest(victim.nb_classes, known_defence, seed, values)
    return RecoveredClassifier(view, entry.load()(request))
