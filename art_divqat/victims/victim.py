"""Victim: a classifier and its capabilities besides answering queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from art_divqat._types import Classifier

Outputs = Literal["logits", "probabilities"]


def never() -> bool:
    """False: the mode of a network that has none, or whose mode cannot be known."""
    return False


@dataclass(frozen=True)
class Probe:
    """What a model of somebody else's answered to a few test images.

    :param images: how many were asked.
    :param right: how many of the answers were right; None where nobody can say.
    :param notes: what is left out of its answers, such as `labels only`.
    :param labels_only: whether they say the class and nothing else.
    """

    images: int
    right: int | None
    notes: tuple[str, ...] = ()
    labels_only: bool = False


@dataclass(frozen=True)
class Capabilities:
    """What is known of a victim that its answers do not say.

    :param outputs: what `predict` gives.
    :param white_box: a logit-valued torch module or ART classifier to take gradients of; None for a black box.
    :param remote: whether every answer is paid for at an endpoint.
    :param nondeterminism: the largest difference between two answers to one image, where an endpoint was asked twice.
    :param own_defences: postprocessors between the network and its answers, which gradients do not see; None for a
        victim that was trained here, which has none.
    :param probe: what a model of somebody else's answered when it was tried; None for a victim that was trained here.
    :param class_ids: which output stands for each class of the data; empty if they are the first ones; None if that is
        not known, so that nobody can say which answers are right.
    :param in_train_mode: says whether dropout and batch statistics are active now; False where that cannot be known.

    >>> Capabilities().outputs
    'logits'
    """

    outputs: Outputs = "logits"
    white_box: Any = None
    remote: bool = False
    nondeterminism: float = 0.0
    own_defences: int | None = None
    probe: Probe | None = None
    class_ids: tuple[int, ...] | None = ()
    in_train_mode: Callable[[], bool] = never


@dataclass(frozen=True)
class Victim:
    """A victim that can be asked, without any defence.

    :param classifier: an ART classifier on float32 NCHW images in [0, 1].
    :param capabilities: what else it can do.
    :param sha256: of the stored file that it was read from or written to; None where there is none.
    """

    classifier: Classifier
    capabilities: Capabilities
    sha256: str | None = None

    def labels(self, labels: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        """Labels of the data as this victim numbers its classes; None where there are none or that is not known."""
        ids = self.capabilities.class_ids
        if labels is None or ids is None:
            return None
        return np.asarray(ids, np.int64)[labels] if ids else labels


def trained_victim(classifier: Any, sha256: str | None = None) -> Victim:
    """The victim that a classifier trained here is: it gives logits, and gradients of itself.

    :param classifier: a `RecipeClassifier` or `QuantizedPyTorchClassifier`.
    :param sha256: of the file that keeps it.
    """
    able = Capabilities(white_box=classifier, in_train_mode=lambda: bool(classifier.model.training))
    return Victim(classifier, able, sha256)
