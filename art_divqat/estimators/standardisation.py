"""Standardisation: read a classifier's fields and image standardisation, which are saved with its network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from art_divqat._validation import parameter_error
from art_divqat.quantization import QuantizationBackend
from art_divqat.quantization.backend import FrozenNetwork

Architecture: TypeAlias = str | Callable[[], nn.Module]
"""A registered model's name, or a function that builds the network."""


class Preprocessed(Protocol):
    """An ART classifier, as far as its preprocessing goes."""

    @property
    def preprocessing(self) -> Any:
        """ART's operation on the images before the network, or None."""


class QuantizedClassifier(Preprocessed, Protocol):
    """The fields of a :class:`QuantizedPyTorchClassifier` that its files and its exports are made of."""

    backend: QuantizationBackend
    architecture: Architecture | None

    @property
    def twin(self) -> FrozenNetwork:
        """The frozen fake-quantized network."""

    @property
    def int8_network(self) -> nn.Module:
        """The network that answers."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channels, height, width)."""

    @property
    def nb_classes(self) -> int:
        """The number of logits."""

    @property
    def channels_first(self) -> bool:
        """Whether images are NCHW."""

    @property
    def clip_values(self) -> Any:
        """The range of pixels, or None."""

    @property
    def loss(self) -> nn.Module:
        """The loss that gradients are taken of."""

    @property
    def preprocessing_defences(self) -> Any:
        """ART's defences on the images, or None."""

    @property
    def postprocessing_defences(self) -> Any:
        """ART's defences on the answers, or None."""


def standardisation_of(classifier: Preprocessed) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Read (mean, std) from a classifier's `preprocessing`; None if it does nothing.

    :raises UserError: for preprocessing that is not a standardisation.

    >>> from art.estimators.classification import PyTorchClassifier
    >>> loss = nn.CrossEntropyLoss()
    >>> standardisation_of(PyTorchClassifier(nn.Flatten(), loss, (1, 2, 2), 4, preprocessing=(0.5, 0.25)))
    (array(0.5, dtype=float32), array(0.25, dtype=float32))
    """
    from art.preprocessing.standardisation_mean_std.numpy import StandardisationMeanStd
    from art.preprocessing.standardisation_mean_std.pytorch import StandardisationMeanStdPyTorch

    operation = classifier.preprocessing
    if operation is None:
        return None
    if not isinstance(operation, (StandardisationMeanStd, StandardisationMeanStdPyTorch)):
        raise parameter_error(classifier, "preprocessing", "a pair (mean, standard deviation)", operation)
    mean, std = np.asarray(operation.mean, np.float32), np.asarray(operation.std, np.float32)
    return None if (mean == 0).all() and (std == 1).all() else (mean, std)
