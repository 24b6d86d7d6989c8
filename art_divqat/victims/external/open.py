"""The external victim of a configuration: read, probed, and ready to be stolen from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from art_divqat.errors import UserError
from art_divqat.victims.external.adapter import ExternalClassifier, prepare
from art_divqat.victims.external.live import held
from art_divqat.victims.external.load import load_external

if TYPE_CHECKING:
    from art_divqat.data import Dataset
    from art_divqat.plan.config import ResolvedConfig

_REPEATED = 16


def external_victim(config: ResolvedConfig, name: str, dataset: Dataset) -> ExternalClassifier:
    """The classifier behind `external:…`, checked against the data.

    :raises UserError: if it cannot be read, needs code that is not trusted, or does not fit the data.
    """
    if config.external is None:
        raise UserError(f"{name} is a model of another place: say where it is with file:PATH or an http(s) address.")
    classifier = held(name)
    if classifier is None:
        classifier = load_external(
            config.external,
            dataset.input_shape,
            dataset.nb_classes,
            trust_code=config.trust_code,
            device=config.device,
            answers=config.answers_file,
        )
    if classifier.outputs is None:
        prepare(classifier, dataset.x_test, dataset.y_test, config.external.outputs)
    if classifier.remote:
        probe = dataset.x_test[:_REPEATED]
        again = classifier.repeat(probe)  # type: ignore[attr-defined]
        classifier.nondeterminism = float(np.abs(classifier.predict(probe) - again).max())
    return classifier
