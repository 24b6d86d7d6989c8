"""Live Python objects as external classifiers: any ART classifier, scikit-learn estimator or torch module."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._types import Classifier, Shape
from art_divqat.data.maite_sets import as_array, follows_maite, label_names
from art_divqat.errors import UserError
from art_divqat.victims.external.adapter import PROBE_IMAGES, ExternalClassifier, decide_outputs, in_train_mode
from art_divqat.victims.external.classes import StatedClasses, stated_classes
from art_divqat.victims.external.settings import OF_OBJECTS, ExternalModel, external_spec

_PLAIN = ExternalModel()


def adapt(
    model: Any,
    input_shape: Shape,
    nb_classes: int,
    class_names: Sequence[str] = (),
    settings: ExternalModel = _PLAIN,
    numbers: Sequence[int] = (),
) -> ExternalClassifier:
    """Any classifier as one on float32 NCHW images in [0, 1]; not yet probed.

    - An ART classifier: channels-last images, flat ones, other clip values than (0, 1) and answers of a single value
      are seen to.
    - A scikit-learn estimator: flat features; `predict_proba`, else `decision_function`, else its labels as one-hot
      rows. Its `classes_` are numbers, or names among which those of the data are.
    - A model that follows MAITE's protocol for image classification: asked with lists of images; `index2label` of its
      metadata names its classes.
    - A torch module: put on the CPU's side as it is, in eval mode, behind `mean` and `std`.

    :param nb_classes: of the data; a model may have more.
    :param class_names: of the data.
    :param settings: `outputs`, `classes`, `mean` and `std` of the model; the others are of files and endpoints.
    :param numbers: of the data's classes, where its labels have gaps.
    :raises UserError: for anything else, or one that takes other images or has other classes than the data.
    """
    _check_settings(model, settings)
    stated = stated_classes(settings, nb_classes, class_names)
    name = type(model).__name__
    if _is_art(model):
        classifier = _from_art(model, input_shape, stated.count)
    elif follows_maite(model) and callable(model):
        names = label_names(model)
        if names and settings.classes is None:
            # by their names if they have those of the data, else by number
            known = names if class_names and set(class_names) <= set(names) else len(names)
            stated = stated_classes(ExternalModel(classes=known), nb_classes, class_names)
        classifier = _from_maite(model, input_shape, stated.count)
    elif _is_module(model):
        from art_divqat.victims.external.torch_files import classifier_of

        first = next(model.parameters(), None)
        device = "cpu" if first is None else str(first.device)
        classifier = classifier_of(model, settings, input_shape, stated.count, device, name)
    elif callable(getattr(model, "predict", None)):
        own = getattr(model, "classes_", None)
        if own is not None and settings.classes is None:
            stated = _classes_of_estimator(own, nb_classes, class_names, tuple(map(str, numbers)))
        classifier = _from_sklearn(model, input_shape, stated.count)
    else:
        raise UserError(
            f"A {name} cannot be audited: expected an ART classifier, a scikit-learn estimator, a torch module or a "
            "model of MAITE's."
        )
    classifier.class_names = stated.of_the_data
    return classifier


def _check_settings(model: Any, settings: ExternalModel) -> None:
    for key, field in ExternalModel.model_fields.items():
        if key not in OF_OBJECTS and getattr(settings, key) != field.default:
            raise UserError(
                f"external={{{key!r}: …}} is for files and endpoints; of an object of Python's one may say "
                f"{', '.join(OF_OBJECTS)}."
            )
    if (settings.mean is not None or settings.std is not None) and (follows_maite(model) or not _is_module(model)):
        raise UserError(
            f"external={{'mean': …, 'std': …}} is for files, endpoints and torch modules: a {type(model).__name__} has "
            "to standardise its images itself, as by ART's preprocessing=(mean, std) or a pipeline of scikit-learn's."
        )


def _classes_of_estimator(
    own: Any, nb_classes: int, class_names: Sequence[str], numbers: Sequence[str]
) -> StatedClasses:
    """Classes as an estimator of scikit-learn's states them: 0, 1, … or names or numbers, the data's among them."""
    names = tuple(map(str, own))
    if np.array_equal(own, np.arange(len(own))) and len(own) >= nb_classes:
        return StatedClasses(len(own), tuple(class_names), tuple(class_names))
    for called in (class_names, numbers):
        if called and set(called) <= set(names):
            return stated_classes(ExternalModel(classes=names), nb_classes, called)
    raise UserError(
        f"The estimator has the classes {', '.join(names[:12])}; the data has "
        f"{', '.join(class_names[:12]) if class_names else f'0 to {nb_classes - 1}'}."
    )


def live_name(classifier: Classifier, label: str, x: NDArray[np.float32]) -> str:
    """The canonical victim of a live classifier: what it answers to the probe images is its identity."""
    answers = classifier.predict(x[:PROBE_IMAGES])
    return external_spec(label, hashlib.sha256(np.round(answers, 4).astype("<f4").tobytes()).hexdigest())


def _is_art(model: Any) -> bool:
    from art.estimators.classification import ClassifierMixin

    return isinstance(model, ClassifierMixin)


def _is_module(model: Any) -> bool:
    import torch

    return isinstance(model, torch.nn.Module)


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


def _from_sklearn(model: Any, shape: Shape, nb_classes: int) -> ExternalClassifier:
    features = getattr(model, "n_features_in_", None)
    if features is not None and features != int(np.prod(shape)):
        raise UserError(f"The estimator takes {features} features; images of shape {shape} have {int(np.prod(shape))}.")
    classes = getattr(model, "classes_", None)
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


def _from_maite(model: Any, shape: Shape, nb_classes: int) -> ExternalClassifier:
    name = type(model).__name__

    def answer(x: NDArray[np.float32]) -> Any:
        return np.stack([as_array(row) for row in model(list(x))])

    return ExternalClassifier(
        answer,
        shape,
        nb_classes,
        # most wrap a network, and one may be a network
        train_mode=lambda: in_train_mode(model) or in_train_mode(getattr(model, "model", None)),
        description=f"The {name}",
        architecture=name,
    )
