"""Conventions of ART classifiers, converted to this project's: images in [0, 1], one logit per class, cross-entropy.

ART classifiers may have pixels in any range (`clip_values`), a single logit for two classes, and many kinds of losses.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from art_divqat._files import first_line
from art_divqat._rng import isolated_random_state
from art_divqat.errors import LossMismatchWarning, UserError

Floats = NDArray[np.float32]
# the least probability that is told from 0 and from 1 in float32
_LEAST = 2.0**-24
_ONE_VALUE = (nn.BCEWithLogitsLoss, nn.BCELoss)
_CROSS_ENTROPIES = (nn.CrossEntropyLoss, nn.NLLLoss, *_ONE_VALUE)


def pixel_range(classifier: Any) -> tuple[Floats, Floats] | None:
    """The smallest and largest pixel value of a classifier, to broadcast against images; None for [0, 1].

    A classifier without `clip_values` is taken to be on [0, 1].

    :raises UserError: for bounds that are not finite, or not in order.
    """
    if getattr(classifier, "clip_values", None) is None:
        return None
    low, high = (np.asarray(value, np.float32) for value in classifier.clip_values)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and np.all(low < high)):
        raise UserError(
            f"Images cannot be scaled to the classifier's clip_values ({low}, {high}): build it with finite ones."
        )
    return None if (low == 0).all() and (high == 1).all() else (low, high)


def to_unit(images: Floats, bounds: tuple[Floats, Floats] | None) -> Floats:
    """Images of a :func:`pixel_range` in [0, 1].

    >>> to_unit(np.array([[[[51.0]]]], np.float32), (np.float32(0), np.float32(255))).item()
    0.2...
    """
    if bounds is None:
        return images
    low, high = bounds
    return np.clip((images - low) / (high - low), 0, 1, dtype=np.float32)


def from_unit(images: Floats, bounds: tuple[Floats, Floats] | None) -> Floats:
    """Images in [0, 1], in a :func:`pixel_range`."""
    if bounds is None:
        return images
    low, high = bounds
    return np.asarray(low + images * (high - low), np.float32)


def gives_one_value(classifier: Any) -> bool:
    """Whether a classifier's loss takes a single value per image: a logit, or a probability, of class 1."""
    return isinstance(getattr(classifier, "loss", None), _ONE_VALUE)


def class_logits(classifier: Any) -> Callable[[Tensor], Tensor]:
    """A function from a network's output to (N, classes) logits: a single logit z becomes the row (0, z).

    A single probability p (with the loss `BCELoss`) becomes the row (log(1 − p), log p); rows of two or more do not
    change.

    >>> from art.estimators.classification import PyTorchClassifier
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    >>> classifier = PyTorchClassifier(network, nn.BCEWithLogitsLoss(), (1, 2, 2), 2)
    >>> class_logits(classifier)(torch.tensor([[3.0]]))
    tensor([[0., 3.]])
    """
    is_probability = isinstance(getattr(classifier, "loss", None), nn.BCELoss)

    def convert(answers: Tensor) -> Tensor:
        if not isinstance(answers, Tensor) or answers.ndim != 2 or answers.shape[1] != 1:
            return answers
        if is_probability:
            p = answers.clamp(_LEAST, 1 - _LEAST)
            return torch.cat([torch.log1p(-p), torch.log(p)], dim=1)
        return torch.cat([torch.zeros_like(answers), answers], dim=1)

    return convert


def two_columns(answers: NDArray[Any], *, probability: bool) -> NDArray[Any]:
    """Answers with one value per image as rows of two, (1 − p, p) or (0, z); other answers unchanged."""
    if answers.ndim != 2 or answers.shape[1] != 1:
        return answers
    return np.concatenate([1 - answers if probability else np.zeros_like(answers), answers], axis=1)


def answers_probability(classifier: Any) -> bool:
    """Whether a classifier with one value per image gives a probability, by its loss or its postprocessors.

    ART's postprocessors, and its classifiers for libraries other than torch, treat a single value as a probability.
    """
    if isinstance(getattr(classifier, "loss", None), nn.BCEWithLogitsLoss):
        return bool(getattr(classifier, "postprocessing_defences", None))
    return True


def unit_predict(classifier: Any) -> Callable[[Floats], NDArray[Any]]:
    """A classifier's `predict` on (N, C, H, W) images in [0, 1], with one value per class.

    The images are scaled to its pixel range; channels last, or flat, if its `input_shape` is.
    """
    bounds, probability = pixel_range(classifier), answers_probability(classifier)
    own = tuple(getattr(classifier, "input_shape", None) or ())

    def predict(x: Floats) -> NDArray[Any]:
        if x.shape[1:] != own:
            if len(own) == 1:
                x = x.reshape(len(x), -1)
            elif x.ndim == 4 and (*x.shape[2:], x.shape[1]) == own:
                x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        return two_columns(np.asarray(classifier.predict(from_unit(x, bounds))), probability=probability)

    return predict


def top_classes(classifier: Any, x: NDArray[Any]) -> NDArray[np.int64]:
    """The classes (N,) of a classifier's answers to images in its own range, also for one value per image."""
    answers = np.asarray(classifier.predict(np.asarray(x, np.float32)))
    return two_columns(answers, probability=answers_probability(classifier)).argmax(axis=1)


def cross_entropy_like(loss: Any) -> nn.CrossEntropyLoss:
    """The cross-entropy of logits that equals a classifier's loss, with its class weights and label smoothing.

    `NLLLoss` behind a log-softmax is one, and `BCEWithLogitsLoss` is one of :func:`class_logits`. Any other loss is
    replaced by the plain cross-entropy.

    >>> cross_entropy_like(nn.NLLLoss(weight=torch.tensor([1.0, 2.0]))).weight
    tensor([1., 2.])
    """
    if isinstance(loss, nn.CrossEntropyLoss):
        return nn.CrossEntropyLoss(weight=loss.weight, label_smoothing=loss.label_smoothing)
    if isinstance(loss, nn.NLLLoss):
        return nn.CrossEntropyLoss(weight=loss.weight)
    if isinstance(loss, nn.BCEWithLogitsLoss) and loss.pos_weight is not None:
        positive = loss.pos_weight.detach().reshape(1)
        return nn.CrossEntropyLoss(weight=torch.cat([torch.ones_like(positive), positive]))
    return nn.CrossEntropyLoss()


def check_answers(owner: object, classifier: Any) -> None:
    """Refuse a network that does not return a tensor with one logit per class, or a single logit for two classes.

    It is run once, in eval mode, on two black images; its mode and the random state do not change.

    :param owner: the trainer, or its name.
    :raises UserError: naming what the network gives, and what to do.
    """
    name = owner if isinstance(owner, str) else type(owner).__name__
    network, classes, shape = classifier.model, classifier.nb_classes, tuple(classifier.input_shape)
    try:
        with torch.no_grad(), isolated_random_state("answers"), in_eval_mode(network):
            answer = network(torch.zeros(2, *shape, device=classifier.device))
    except Exception as error:
        # the network is somebody else's: it may fail in any way it likes
        raise UserError(
            f"{name} cannot run {type(network).__name__} on images of the classifier's input_shape {shape}: "
            f"{first_line(error)[:200]}"
        ) from error
    check_tensor(name, network, answer)
    given = tuple(answer.shape)
    single = gives_one_value(classifier)
    if single and given != (2, 1):
        loss = type(classifier.loss).__name__
        raise UserError(
            f"{loss} is for a network of one value an image, (N, 1), and {type(network).__name__} gives shape {given} "
            "for two images: build the classifier with torch.nn.CrossEntropyLoss for one value a class."
        )
    if single and classes == 2:
        return
    if given == (2, 1):
        raise UserError(
            f"{type(network).__name__} gives one value an image: build the classifier with nb_classes=2 and "
            "torch.nn.BCEWithLogitsLoss, or let the network give one logit a class."
        )
    if given != (2, classes):
        raise UserError(
            f"{name} needs one logit a class, shape (2, {classes}) for two images, as the classifier says "
            f"nb_classes={classes}. {type(network).__name__} gives shape {given}."
        )


def are_probabilities(answers: Tensor) -> bool:
    """Whether rows (N, classes) are like a softmax's output: no negative entry, each row with sum 1.

    >>> are_probabilities(torch.tensor([[0.25, 0.75]])), are_probabilities(torch.tensor([[-1.0, 2.0]]))
    (True, False)
    """
    return bool((answers >= 0).all()) and bool(((answers.sum(dim=1) - 1).abs() < 1e-4).all())


def warn_of_other_loss(owner: object, classifier: Any) -> None:
    """Warn if the classifier was not built for a trainer's cross-entropy of logits.

    This is so if the network returns probabilities (it ends in a softmax; tested on two black images), or if the loss
    is not a cross-entropy. Both train, but DivQAT works badly with the first.

    :param owner: the trainer; its network has passed :func:`check_answers`.
    """
    name, network, loss = type(owner).__name__, classifier.model, classifier.loss
    with torch.no_grad(), isolated_random_state("answers"), in_eval_mode(network):
        answer = network(torch.zeros(2, *classifier.input_shape, device=classifier.device))
    if answer.shape[1] > 1 and are_probabilities(answer):
        _warn(
            f"{name} takes the answers of {type(network).__name__} for logits, and they are probabilities, as a "
            "softmax at its end gives them: it trains a softmax of a softmax, by which DivQAT hides behind one "
            "confident class. Let forward return what goes into the softmax, and give the classifier "
            "postprocessing_defences=[art_divqat.defences.postprocessor.Softmax()]."
        )
    named = getattr(loss, "__name__", type(loss).__name__)
    if not isinstance(loss, _CROSS_ENTROPIES) and named not in ("cross_entropy", "nll_loss"):
        _warn(
            f"{name} trains by cross-entropy, not by the classifier's {named}: build the classifier with "
            "torch.nn.CrossEntropyLoss if that is meant."
        )


def _warn(message: str) -> None:
    warnings.warn(LossMismatchWarning(message), stacklevel=4)


def check_tensor(name: str, network: Any, answer: Any) -> None:
    """Refuse a network that returns anything but a tensor.

    :param name: of what needs it.
    :raises UserError: naming what it gives, and what to return instead.

    >>> check_tensor("PGD", nn.Identity(), {"logits": torch.ones(2, 3)})
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: PGD needs a network that gives a tensor of logits, and Identity gives a dict of \
'logits': wrap it in a module whose forward returns network(x)['logits'].
    """
    if not isinstance(answer, Tensor):
        what, entry = _described(answer)
        raise UserError(
            f"{name} needs a network that gives a tensor of logits, and {type(network).__name__} gives {what}: wrap it "
            f"in a module whose forward returns {entry}."
        )


def main_answer(answer: Any) -> Any:
    """The first of several answers: in training mode some networks add those of auxiliary heads (GoogLeNet)."""
    return answer[0] if isinstance(answer, tuple) and answer else answer


@contextlib.contextmanager
def keeping_modes(network: nn.Module) -> Iterator[None]:
    """Restore every module's mode afterwards, whatever happens inside."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every module's mode as before afterwards."""
    with keeping_modes(network):
        network.eval()
        yield


def _described(answer: Any) -> tuple[str, str]:
    """What came instead of a tensor, and the entry of it that is most likely meant."""
    kind = type(answer).__name__
    if isinstance(answer, Mapping) and answer:
        keys = list(answer)
        likely = next((key for key in ("logits", "out", "output") if key in keys), keys[0])
        return f"a {kind} of {', '.join(map(repr, keys[:6]))}", f"network(x)[{likely!r}]"
    if isinstance(answer, (tuple, list)) and answer:
        return f"a {kind} of {len(answer)}", "network(x)[0]"
    return f"a {kind}", "its logits"
