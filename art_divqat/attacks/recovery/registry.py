"""Recoveries by name, for `recovery=` among an attack's parameters, and the reading of `answers`.

Importing this module imports neither torch nor ART; building a recovery does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from art_divqat.errors import UserError, unknown_name
from art_divqat.parameters import Parameters, choice, integer, real

if TYPE_CHECKING:
    from art_divqat.attacks.recovery.answers import Recovery
    from art_divqat.attacks.recovery.learned import Defence


@dataclass(frozen=True)
class RecoveryRequest:
    """What a recovery is built from: the classes, what the thief knows of the defence, a seed and its parameters."""

    nb_classes: int
    known_defence: Defence | None
    seed: int
    values: Mapping[str, Any]

    def defence(self, name: str) -> Defence:
        """The known defence.

        :raises UserError: if the thief knows none.
        """
        if self.known_defence is None:
            raise UserError(
                f"Recovery {name!r} needs a defence that the thief can rebuild, one that depends on the answer alone. "
                "This victim has none; use recovery=labels or recovery=average."
            )
        return self.known_defence


@dataclass(frozen=True)
class RecoveryEntry:
    """How to build one recovery, what it is in a line, and its parameters."""

    summary: str
    build: Callable[[RecoveryRequest], Recovery]
    parameters: Parameters = field(default_factory=dict)


def _labels(request: RecoveryRequest) -> Recovery:
    from art_divqat.attacks.recovery.answers import Labels

    del request
    return Labels()


def _top_k(request: RecoveryRequest) -> Recovery:
    from art_divqat.attacks.recovery.answers import TopK

    return TopK(request.values["k"])


def _average(request: RecoveryRequest) -> Recovery:
    from art_divqat.attacks.recovery.answers import AverageRepeats

    return AverageRepeats(request.values["repeats"])


def _recentre(request: RecoveryRequest) -> Recovery:
    from art_divqat.attacks.recovery.answers import Recentre

    return Recentre(request.values["spread"])


def _invert(request: RecoveryRequest) -> Recovery:
    from art_divqat.attacks.recovery.invert import InvertHeuristic

    # other defences have a beta and a gamma too; only the heuristic has variants
    known = request.known_defence if hasattr(request.known_defence, "variant") else None
    values = {
        name: getattr(known, name, None) if request.values[name] is None else request.values[name]
        for name in ("beta", "gamma", "variant")
    }
    if values["beta"] is None:
        raise UserError(
            "Recovery 'invert' needs the heuristic perturbation, and this victim is not known to use it: "
            "add beta=… to the attack, or use another recovery."
        )
    return InvertHeuristic(
        float(values["beta"]),
        0.2 if values["gamma"] is None else float(values["gamma"]),
        values["variant"] or "exact",
        nu=float(getattr(known, "nu", 1000.0)),
    )


def _restorer(request: RecoveryRequest) -> Recovery:
    from art_divqat.attacks.recovery.learned import LearnedRestorer

    return LearnedRestorer(request.defence("dae"), request.nb_classes, pairs=request.values["pairs"], seed=request.seed)


def _bayes(request: RecoveryRequest) -> Recovery:
    from art_divqat.attacks.recovery.learned import PartialBayes

    return PartialBayes(
        request.defence("bayes"),
        request.nb_classes,
        samples=request.values["samples"],
        tolerance=request.values["tolerance"],
        seed=request.seed,
    )


NEED_WHOLE_ROWS = ("bayes", "dae", "invert", "recentre")

RECOVERIES: dict[str, RecoveryEntry] = {
    "average": RecoveryEntry(
        "ask every image several times and average, at that price", _average, {"repeats": integer(4, 2)}
    ),
    "bayes": RecoveryEntry(
        "mean of the sampled answers whose defended version is near (ModelGuard's adaptive attack)",
        _bayes,
        {"samples": integer(20_000, 1), "tolerance": real(0.05, 0, 2)},
    ),
    "dae": RecoveryEntry(
        "a restorer network trained on (answer, defended answer) pairs (D-DAE)",
        _restorer,
        {"pairs": integer(20_000, 256)},
    ),
    "invert": RecoveryEntry(
        "solve the heuristic perturbation for the clean answer, given its beta and gamma",
        _invert,
        {
            "beta": real(None, 0, closed="neither"),
            "gamma": real(None, 0, closed="neither"),
            "variant": choice(None, "exact", "released"),
        },
    ),
    "labels": RecoveryEntry("believe only the top class", _labels),
    "recentre": RecoveryEntry(
        "take away each class's usual level, over all images of a call: what tells DivQAT's answers apart",
        _recentre,
        {"spread": real(None, 0, closed="neither")},
    ),
    "top-k": RecoveryEntry("believe only the k highest probabilities", _top_k, {"k": integer(3, 1)}),
}


def list_recoveries() -> dict[str, str]:
    """Every recovery with one line on it."""
    return {name: entry.summary for name, entry in sorted(RECOVERIES.items())}


# these throw away what a defence changed; the other recoveries undo it
THROWN_AWAY = ("labels", "top-k")


def undoes_a_defence(recovery: object) -> bool:
    """Whether a recovery does something about a defence, and does not merely throw away what the defence changed.

    >>> undoes_a_defence("invert"), undoes_a_defence("labels"), undoes_a_defence(None)
    (True, False, False)
    """
    return recovery is not None and recovery not in THROWN_AWAY


def recovery_entry(name: str) -> RecoveryEntry:
    """The entry of a name.

    :raises UserError: for an unknown name.
    """
    if name not in RECOVERIES:
        raise unknown_name("recovery", name, RECOVERIES)
    return RECOVERIES[name]


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
    if top is not None and recovery in NEED_WHOLE_ROWS:
        raise UserError(f"Recovery {recovery!r} works on whole rows of probabilities: use it with answers soft.")
    request = RecoveryRequest(victim.nb_classes, known_defence, seed, values)
    return RecoveredClassifier(view, recovery_entry(recovery).build(request))
