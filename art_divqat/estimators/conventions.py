"""Conventions of ART classifiers, read as this project computes: images in [0, 1], one logit a class, cross-entropy.

ART's users keep pixels in any range (`clip_values`), give networks one logit for a yes or no, and train by many losses.
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
    """The least and the greatest pixel of a classifier, to broadcast against images; None for [0, 1].

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
    """Whether a classifier's loss is one of a single value an image: a logit, or a probability, of class 1."""
    return isinstance(getattr(classifier, "loss", None), _ONE_VALUE)


def class_logits(classifier: Any) -> Callable[[Tensor], Tensor]:
    """A function from what a classifier's network gives to (N, classes) logits: a single logit z is the row (0, z).

    A single probability p (of a loss `BCELoss`) is the row (log(1 − p), log p); rows of two or more stay as they are.

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
    """Answers of one value an image as rows of two, (1 − p, p) or (0, z); other answers as they are."""
    if answers.ndim != 2 or answers.shape[1] != 1:
        return answers
    return np.concatenate([1 - answers if probability else np.zeros_like(answers), answers], axis=1)


def answers_probability(classifier: Any) -> bool:
    """Whether a classifier that gives one value an image gives a probability: by its loss, or by what stands behind.

    ART's postprocessors, and its classifiers of other libraries than torch, know a single value as a probability only.
    """
    if isinstance(getattr(classifier, "loss", None), nn.BCEWithLogitsLoss):
        return bool(getattr(classifier, "postprocessing_defences", None))
    return True


def unit_predict(classifier: Any) -> Callable[[Floats], NDArray[Any]]:
    """A classifier's `predict` on (N, C, H, W) images in [0, 1], of one value a class.

    The images are brought to its range of pixels; channels last, or flat, if its `input_shape` is.
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
    """The classes (N,) of a classifier's answers to images in its own range, of one value an image too."""
    answers = np.asarray(classifier.predict(np.asarray(x, np.float32)))
    return two_columns(answers, probability=answers_probability(classifier)).argmax(axis=1)


def cross_entropy_like(loss: Any) -> nn.CrossEntropyLoss:
    """The cross-entropy of logits that a classifier's loss is, with its class weights and label smoothing.

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
    """Refuse a network that does not give a tensor of one logit a class, or of one logit for a yes or no.

    It is run once, in eval mode, on two black images; its mode and the random state stay as they were.

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
    """Whether rows (N, classes) are what a softmax gives: none below 0, each of sum 1.

    >>> are_probabilities(torch.tensor([[0.25, 0.75]])), are_probabilities(torch.tensor([[-1.0, 2.0]]))
    (True, False)
    """
    return bool((answers >= 0).all()) and bool(((answers.sum(dim=1) - 1).abs() < 1e-4).all())


def warn_of_other_loss(owner: object, classifier: Any) -> None:
    """Warn where a trainer's cross-entropy of logits is not what the classifier was built for.

    That is a network whose answers are probabilities already (a softmax at its end), seen on two black images, and a
    loss that is no cross-entropy. Both train, DivQAT badly on the first.

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
    """Refuse a network that gives anything but a tensor.

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
    """Whatever happens inside, every module has its mode again afterwards."""
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
