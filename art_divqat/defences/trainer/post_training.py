"""Post-training quantization: ranges from calibration images, unchanged weights."""

from __future__ import annotations

from typing import Any

from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray

from art_divqat._validation import check_int, parameter_error
from art_divqat.defences.trainer._preparation import preprocess, quantized_like
from art_divqat.estimators.conventions import check_answers
from art_divqat.estimators.quantized import QuantizedPyTorchClassifier
from art_divqat.estimators.standardisation import Architecture
from art_divqat.quantization import get_backend


def quantize_post_training(
    classifier: PyTorchClassifier,
    calibration_images: NDArray[Any],
    *,
    backend: str = "fx",
    engine: str | None = None,
    architecture: Architecture | None = None,
    batch_size: int = 256,
) -> QuantizedPyTorchClassifier:
    """The int8 version of a full-precision classifier, without any training; the original does not change.

    :param calibration_images: a few hundred images of the training distribution, (N, C, H, W); without labels.
    :param batch_size: the ranges are moving averages over batches of this size.
    :raises UserError: for a classifier that is no `PyTorchClassifier` or cannot be traced, a network that gives
        something else than logits, no or other images, or an int8 network whose answers are not those of the
        full-precision arithmetic, or differ from call to call.

    >>> from sklearn.datasets import load_digits
    >>> from art_divqat.estimators import RecipeClassifier, TrainingRecipe
    >>> from art_divqat.models import build_model
    >>> x = load_digits().images[:200, None] / 16
    >>> network = build_model("lenet5", (1, 8, 8), 10, seed=0)
    >>> quantize_post_training(RecipeClassifier(network, (1, 8, 8), 10, TrainingRecipe()), x).predict(x[:3]).shape
    (3, 10)
    """
    if not isinstance(classifier, PyTorchClassifier) or isinstance(classifier, QuantizedPyTorchClassifier):
        raise parameter_error(
            "quantize_post_training", "classifier", "a full-precision ART PyTorchClassifier", type(classifier).__name__
        )
    check_answers("quantize_post_training", classifier)
    check_int("quantize_post_training", "batch_size", batch_size, 1)
    quantizer = get_backend(backend, engine)
    prepared = quantizer.prepare(classifier.model, classifier.input_shape)
    images = preprocess(classifier, calibration_images, fit=False).to(classifier.device)
    quantizer.calibrate(prepared, images.split(batch_size) if len(images) else ())
    return quantized_like(classifier, prepared, quantizer, architecture, images[:batch_size])
