"""Live Python objects as external classifiers: any ART classifier, scikit-learn estimator or torch module."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._types import Classifier, Shape
from art_divqat.errors import UserError
from art_divqat.victims.external.adapter import PROBE_IMAGES, ExternalClassifier, decide_outputs, in_train_mode
from art_divqat.victims.external.settings import ExternalModel, external_spec


def adapt(model: Any, input_shape: Shape, nb_classes: int, class_names: Sequence[str] = ()) -> ExternalClassifier:
    """Any classifier as one on float32 NCHW images in [0, 1]; not yet probed.

    - An ART classifier: channels-last images, flat ones, other clip values than (0, 1) and answers of a single value
      are seen to.
    - A scikit-learn estimator: flat features; `predict_proba`, else `decision_function`, else its labels as one-hot
      rows.
    - A torch module: put on the CPU's side as it is, in eval mode.

    :param nb_classes: of the data; a model may have more.
    :param class_names: of the data.
    :raises UserError: for anything else, or one that takes other images or has other classes than the data.
    """
    name = type(model).__name__
    if _is_art(model):
        return _named(_from_art(model, input_shape, nb_classes), class_names)
    import torch

    if isinstance(model, torch.nn.Module):
        from art_divqat.victims.external.torch_files import classifier_of

        first = next(model.parameters(), None)
        device = "cpu" if first is None else str(first.device)
        return _named(classifier_of(model, ExternalModel(), input_shape, nb_classes, device, name), class_names)
    if callable(getattr(model, "predict", None)):
        return _named(_from_sklearn(model, input_shape, nb_classes, class_names), class_names)
    raise UserError(
        f"A {name} cannot be audited: expected an ART classifier, a scikit-learn estimator or a torch module."
    )


def _named(classifier: ExternalClassifier, class_names: Sequence[str]) -> ExternalClassifier:
    classifier.class_names = tuple(class_names)
    return classifier


def live_name(classifier: Classifier, label: str, x: NDArray[np.float32]) -> str:
    """The canonical victim of a live classifier: what it answers to the probe images is its identity."""
    answers = classifier.predict(x[:PROBE_IMAGES])
    return external_spec(label, hashlib.sha256(np.round(answers, 4).astype("<f4").tobytes()).hexdigest())


def _is_art(model: Any) -> bool:
    from art.estimators.classification import ClassifierMixin

    return isinstance(model, ClassifierMixin)


def _from_art(model: Any, shape: Shape, nb_classes: int) -> ExternalClassifier:
    from art_divqat.estimators.conventions import unit_predict

    own, channels_last = tuple(model.input_shape), (shape[1], shape[2], shape[0])
    flat = (int(np.prod(shape)),)
    if own not in (shape, channels_last, flat):
        raise UserError(f"The classifier takes images of shape {own}; the data has {shape}.")
    if model.nb_classes < nb_classes:
        raise UserError(f"The classifier has {model.nb_classes} classes; the data has {nb_classes}.")
    white_box = _white_box(model) if own == shape else None
    return ExternalClassifier(
        unit_predict(model),
        shape,
        model.nb_classes,
        white_box=None if white_box is None else lambda outputs: white_box,
        train_mode=lambda: in_train_mode(getattr(model, "model", None)),
        own_defences=len(getattr(model, "postprocessing_defences", None) or ()),
        description=f"The {type(model).__name__}",
        architecture=type(model).__name__,
    )


def _white_box(model: Any) -> Any:
    """What gradients are taken of: the classifier, or its network behind a logarithm if that ends in a softmax."""
    import torch
    from art.estimators.classification import PyTorchClassifier

    if not isinstance(model, PyTorchClassifier):
        return None
    from art_divqat.attacks.evasion.networks import differentiable_preprocessing
    from art_divqat.estimators.conventions import check_tensor, class_logits, in_eval_mode

    try:
        before = differentiable_preprocessing(model)
    except UserError:
        return None
    network = getattr(model, "twin", model.model)
    probe = torch.rand(8, *model.input_shape, generator=torch.Generator().manual_seed(0)).to(model.device)
    with torch.no_grad(), in_eval_mode(network):
        answers = class_logits(model)(network(probe if before is None else before(probe)))
    check_tensor("An audit", network, answers)
    try:
        kind = decide_outputs(answers.float().cpu().numpy(), "auto")
    except UserError:
        return None
    return model if kind == "logits" else None


def _from_sklearn(model: Any, shape: Shape, nb_classes: int, class_names: Sequence[str] = ()) -> ExternalClassifier:
    features = getattr(model, "n_features_in_", None)
    if features is not None and features != int(np.prod(shape)):
        raise UserError(f"The estimator takes {features} features; images of shape {shape} have {int(np.prod(shape))}.")
    classes = getattr(model, "classes_", None)
    if classes is not None:
        named = list(map(str, classes)) == list(class_names)
        if not named and not (len(classes) >= nb_classes and np.array_equal(classes, np.arange(len(classes)))):
            first_few = ", ".join(map(str, list(classes)[:12]))
            raise UserError(f"The estimator has the classes {first_few}; the data has 0 to {nb_classes - 1}.")
        nb_classes = len(classes)

    name = type(model).__name__

    def answer(x: NDArray[np.float32]) -> Any:
        rows = x.reshape(len(x), -1)
        for method in ("predict_proba", "decision_function"):
            function = getattr(model, method, None)
            if function is not None:
                given = np.asarray(function(rows))
                return np.stack([-given / 2, given / 2], axis=1) if given.ndim == 1 else given
        labels = np.asarray(model.predict(rows))
        ids = labels if classes is None else np.searchsorted(classes, labels)
        return np.eye(nb_classes, dtype=np.float32)[np.asarray(ids, dtype=np.int64)]

    return ExternalClassifier(answer, shape, nb_classes, description=f"The {name}", architecture=name)
