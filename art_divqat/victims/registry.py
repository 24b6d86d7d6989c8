"""Victims by name: what they are, how they are trained, and which victim each is compared with.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from art_divqat._types import Progress
from art_divqat._validation import check_choice
from art_divqat.attacks.evasion.ball import check_epsilon
from art_divqat.defences.trainer.divqat_parameters import DIVQAT_NUMBERS, HEADS
from art_divqat.errors import UserError
from art_divqat.parameters import Parameter, Parameters, choice, integer, text
from art_divqat.quantization._names import BACKENDS, ENGINES, RUNTIMES, check_installed, check_runtime
from art_divqat.registry import Registry, load_target
from art_divqat.specs import Spec
from art_divqat.victims.external.settings import EXTERNAL

AUXILIARY_MIXTURE = "mixture"
# trained here, without any defence, beside a model of somebody else's: what the same attack gets of it
CONTROL = "standard"


@dataclass(frozen=True)
class RobustTrainer:
    """An adversarial trainer by name, and the settings that are recommended for it.

    :param trainer: `package.module:Class`.
    """

    trainer: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def build(
        self,
        classifier: Any,
        *,
        epsilon: float,
        seed: int = 0,
        epochs: int = 20,
        batch_size: int = 64,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Any:
        """The trainer, an ART one; further settings replace the recommended ones.

        :raises UserError: for a parameter out of range.
        """
        return load_target(self.trainer)(
            classifier,
            epsilon=epsilon,
            seed=seed,
            nb_epochs=epochs,
            batch_size=batch_size,
            progress=progress,
            **{**self.settings, **settings},
        )


@dataclass(frozen=True)
class VictimEntry:
    """One kind of victim: a line on it, how it is trained, what it takes, and what is true of it.

    :param train: a function or `package.module:function`; called with a
        :class:`~art_divqat.victims.training.VictimContext` and the specification, it gives the trained classifier.
    :param parameters: of these, `epsilon` is the run's radius unless said, and `auxiliary` the name of images of
        another distribution, which are never the attacker's.
    :param baseline: the victim that it is compared with.
    :param parent: the full-precision victim that it is made from, or None for one that is trained from scratch.
    :param adversarial: whether it is trained on adversarial examples.
    :param quantized: whether its network is int8.
    :param trainer: of an adversarially trained full-precision one.
    """

    summary: str
    train: str | Callable[[Any, Spec], Any]
    parameters: Parameters = field(default_factory=dict)
    baseline: str | None = None
    parent: str | None = None
    adversarial: bool = False
    quantized: bool = False
    trainer: RobustTrainer | None = None


def _backend(owner: object, name: str, value: Any) -> str:
    backend: str = check_choice(owner, name, value, BACKENDS)
    check_installed(backend)
    return backend


def _engine(owner: object, name: str, value: Any) -> str:
    engine: str = check_choice(owner, name, value, ENGINES)
    if engine in RUNTIMES:
        check_runtime(engine)
    return engine


_TRAINING = "art_divqat.victims.training"
_TRAINERS = "art_divqat.defences.trainer"
_EPSILON: Parameters = {"epsilon": Parameter(None, lambda owner, name, value: check_epsilon(owner, value, zero=False))}
_STEPS: Parameters = {"steps": integer(7, 1)}
# by default the best of torch's engines that the CPU has
_BACKEND: Parameters = {"backend": Parameter("fx", _backend), "engine": Parameter(None, _engine)}
# by default as many epochs as the recipe of the victims has
_QAT: Parameters = {**_BACKEND, "epochs": integer(None, 1), "head": choice("kept", *HEADS)}
_DIVQAT: Parameters = {**_QAT, "auxiliary": text(AUXILIARY_MIXTURE), "mixture": text("all"), **DIVQAT_NUMBERS}


def _robust(summary: str, trainer: str, parameters: Parameters, settings: Mapping[str, Any]) -> VictimEntry:
    return VictimEntry(
        summary,
        f"{_TRAINING}:robust",
        {**_EPSILON, **parameters},
        baseline="standard",
        adversarial=True,
        trainer=RobustTrainer(f"{_TRAINERS}.{trainer}", settings),
    )


# On 8×8 digits at ε = 0.2: robust accuracy .57 with three inner steps, .60 with seven, at twice the price.
_SETTINGS = {"max_iter": 3, "warm_up": 0.3}

VICTIMS = Registry(
    "victim",
    "victims",
    VictimEntry,
    {
        CONTROL: VictimEntry("trained on the labels alone", f"{_TRAINING}:standard"),
        EXTERNAL: VictimEntry(
            "your own model: file:PATH or an http(s) address",
            f"{_TRAINING}:external",
            {"name": text(None), "sha256": text(None)},
        ),
        "robust": _robust(
            "adversarially trained with PGD (Madry et al., ICLR 2018)", "madry:MadryPGDTrainer", _STEPS, _SETTINGS
        ),
        "robust-trades": _robust(
            "TRADES: cross-entropy plus divergence within the ball (Zhang et al., ICML 2019)",
            "trades:TradesTrainer",
            _STEPS,
            _SETTINGS,
        ),
        "robust-awp": _robust(
            "PGD training at adversarially perturbed weights (Wu et al., NeurIPS 2020)",
            "awp:AWPTrainer",
            _STEPS,
            _SETTINGS,
        ),
        "robust-fast": _robust(
            "single-step training from random starts (Wong et al., ICLR 2020)",
            "fast:FastTrainer",
            {},
            {"warm_up": 0.3},
        ),
        "robust-static": _robust(
            "clean plus examples crafted once on the natural victim (arXiv 2207.10561)",
            "static:StaticTrainer",
            _STEPS,
            {},
        ),
        "ptq": VictimEntry(
            "int8 by post-training quantization of standard",
            f"{_TRAINING}:post_training",
            _BACKEND,
            baseline="standard",
            parent="standard",
            quantized=True,
        ),
        "quantized": VictimEntry(
            "int8 by plain quantization-aware training from standard",
            f"{_TRAINING}:quantization_aware",
            _QAT,
            baseline="standard",
            parent="standard",
            quantized=True,
        ),
        "divqat": VictimEntry(
            "int8 by DivQAT from standard: answers pushed away from the full-precision network's (arXiv 2512.23948)",
            f"{_TRAINING}:divqat",
            _DIVQAT,
            baseline="quantized",
            parent="standard",
            quantized=True,
        ),
        "robust-quantized": VictimEntry(
            "int8 by adversarial quantization-aware training from robust",
            f"{_TRAINING}:quantization_aware",
            {**_EPSILON, **_QAT},
            baseline="robust",
            parent="robust",
            adversarial=True,
            quantized=True,
        ),
        "robust-divqat": VictimEntry(
            "int8 by adversarial DivQAT from robust",
            f"{_TRAINING}:divqat",
            {**_EPSILON, **_DIVQAT},
            baseline="robust-quantized",
            parent="robust",
            adversarial=True,
            quantized=True,
        ),
    },
)


def list_victims() -> dict[str, str]:
    """Every kind of victim with one line on it.

    >>> "divqat" in list_victims()
    True
    """
    return VICTIMS.summaries()


def robust_trainer(name: str) -> RobustTrainer:
    """The adversarial trainer behind a full-precision robust victim; `build` gives it for a classifier.

    :raises UserError: for an unknown name, or a victim that is no such one.

    >>> robust_trainer("robust-fast").trainer
    'art_divqat.defences.trainer.fast:FastTrainer'
    """
    trainer = VICTIMS[name].trainer
    if trainer is None:
        raise UserError(f"The victim {name!r} has no adversarial trainer of its own: take one such as robust.")
    return trainer


def known_victim(victim: str) -> VictimEntry | None:
    """The entry of a victim as results name it; None where its plug-in is not installed here, or no longer exists.

    >>> known_victim("robust:epsilon=0.2").adversarial, known_victim("gone:depth=3")
    (True, None)
    """
    return VICTIMS.find(victim.partition(":")[0])


def is_control(victim: str, config: Mapping[str, Any]) -> bool:
    """Whether a victim of a run is its positive control, and none of what was audited.

    :param config: of the run, as its results have it.

    >>> is_control("standard", {"control": True}), is_control("standard", {})
    (True, False)
    """
    return bool(config.get("control")) and victim == CONTROL


def baseline_of(victim: str, victims: Sequence[str]) -> str | None:
    """The one among `victims` that `victim` is compared with, or None."""
    entry = known_victim(victim)
    if entry is None or entry.baseline is None:
        return None
    return next((other for other in victims if other.partition(":")[0] == entry.baseline), None)
