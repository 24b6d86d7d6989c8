"""Open the external victim of a run: load its model, probe it on the data, and return it ready for attacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from art_divqat.errors import UserError
from art_divqat.victims.external.adapter import probe
from art_divqat.victims.external.load import load_external
from art_divqat.victims.external.settings import ExternalModel
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
    return probe(classifier, dataset.x_test, dataset.y_test, model.outputs)
