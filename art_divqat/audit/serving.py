"""A victim as it is served: probabilities, through the defences it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from art_divqat.audit.bench import Bench


def serve(classifier: Any, defence: str, *, seed: int, bench: Bench) -> Any:
    """An ART classifier that answers with probabilities, `Softmax` first and then the named defences.

    The classifier itself is not changed: white-box attacks go on seeing its logits.

    :param classifier: an ART classifier whose `predict` gives logits.
    :param defence: `none`, or a chain such as `heuristic:beta=0.5+rounding:decimals=2`.
    """
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork

    from art_divqat.defences.postprocessor import Softmax

    return BlackBoxClassifierNeuralNetwork(
        predict_fn=classifier.predict,
        input_shape=classifier.input_shape,
        nb_classes=classifier.nb_classes,
        clip_values=classifier.clip_values,
        postprocessing_defences=[Softmax()],
    )
