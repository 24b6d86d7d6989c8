"""Open the external victim of a run: load its model, probe it on the data, and return it ready for attacks."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from art_divqat.errors import UserError
from art_divqat.models.registry import LIBRARIES, MODELS
from art_divqat.victims.external.adapter import probe
from art_divqat.victims.external.identify import identify
from art_divqat.victims.external.load import load_external
from art_divqat.victims.external.settings import ExternalModel, local_path
from art_divqat.victims.victim import Victim

if TYPE_CHECKING:
    from art_divqat.data import Dataset


def external_victim(
    name: str,
    model: ExternalModel | None,
    dataset: Dataset,
    *,
    trust_code: bool = False,
    device: str = "cpu",
    answers: Path | None = None,
) -> Victim:
    """The victim behind `external:…`, checked against the data.

    :param model: where it is.
    :param trust_code: see :func:`load_external`, as for `device` and `answers`.
    :raises UserError: if it cannot be read, needs code that is not trusted, or does not fit the data.
    """
    if model is None:
        raise UserError(f"{name} is a model of another place: say where it is with file:PATH or an http(s) address.")
    classifier = load_external(
        model,
        dataset.input_shape,
        dataset.nb_classes,
        trust_code=trust_code,
        device=device,
        answers=answers,
        class_names=dataset.class_names,
    )
    decided_by = None if device != "cpu" else _decided_by(name, model, dataset)
    return probe(classifier, dataset.x_test, dataset.y_test, model.outputs, decided_by, dataset.class_numbers)


def _decided_by(name: str, model: ExternalModel, dataset: Dataset) -> tuple[object, ...] | None:
    """All that decides a model's answers on this machine; None where code of somebody else's may."""
    if model.is_remote or model.factory is not None or model.source is None:
        return None
    kind, by = identify(local_path(model.source)), None
    if kind in ("onnx", "openvino"):
        by = metadata.version("onnxruntime" if kind == "onnx" else "openvino")
    elif kind in ("safetensors", "state-dict") and model.architecture is not None:
        origin = MODELS.origin(model.architecture)
        if origin is None or origin.startswith(LIBRARIES):
            by = f"{model.architecture}, {origin}"
    return None if by is None else (name, model.for_results(), dataset.input_shape, dataset.class_names, by)
