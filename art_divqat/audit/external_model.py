"""The audited model as described in a run: its location, kind and answers, and a plan that fits its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from art_divqat.errors import UserError
from art_divqat.plan.cells import applies
from art_divqat.plan.config import ResolvedConfig

if TYPE_CHECKING:
    from art_divqat.audit.bench import Bench


def model_kind(config: ResolvedConfig) -> str | None:
    """`file` (or folder), `endpoint` or `object` (of Python's), by where an audited model is; None without one."""
    if config.external is None:
        return None
    return "object" if config.external.source is None else "endpoint" if config.external.is_remote else "file"


def describe_model(bench: Bench) -> dict[str, Any]:
    """Load the audited model, ask it a few test images, and say what it is and answers.

    :raises UserError: for a model that cannot be read or does not fit the data.
    """
    victim = bench.victims.external(next(victim for victim in bench.config.victims if victim.is_external))
    classifier, able = victim.classifier, victim.capabilities
    found: dict[str, Any] = {
        "kind": model_kind(bench.config),
        "architecture": getattr(classifier, "architecture", type(classifier).__name__),
        "input": list(classifier.input_shape),
        "classes": classifier.nb_classes,
        "outputs": able.outputs,
    }
    if able.probe is not None:
        probe = able.probe
        found |= {"answers": list(probe.notes), "labels_only": probe.labels_only}
        found |= {"probe_images": probe.images, "probe_right": probe.right}
    if classifier.nb_classes != bench.dataset.nb_classes:
        found |= {"data_classes": bench.dataset.nb_classes, "classes_matched": able.class_ids is not None}
    return found


def as_answered(config: ResolvedConfig, data: dict[str, Any]) -> ResolvedConfig:
    """The configuration with hard answers alone, if the model gives its label and nothing else.

    :param data: what a run records of its data; `model` says what the model answers.
    :raises UserError: for an attack that needs more than labels, or that knows true labels where the model's classes
        are not those of the data.
    """
    if data.get("model", {}).get("classes_matched") is False:
        for attack in config.attacks:
            if attack.entry.needs_own_labels:
                raise UserError(
                    f"Attack {str(attack)!r} trains on true labels, and which of the model's classes those are is not "
                    "known: give --no-attacker-labels, or name the classes of the data by the model's numbers."
                )
    if not data.get("model", {}).get("labels_only") or config.answers == ("hard",):
        return config
    for attack in config.attacks:
        if not any(applies(attack, defence, "hard") for defence in config.defences):
            raise UserError(f"The model answers with labels only, and attack {str(attack)!r} needs more: leave it out.")
    return config.model_copy(update={"answers": ("hard",)})
