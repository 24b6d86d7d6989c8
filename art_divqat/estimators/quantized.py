"""Quantized classifier: answer from an int8 network, take gradients from that network's float twin."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import nn

from art_divqat._validation import check_choice, check_int
from art_divqat.data.known_rows import KNOWN_BATCH, KnownRows
from art_divqat.data.stored import chunk_of
from art_divqat.errors import UserError
from art_divqat.estimators.conventions import class_logits, gives_one_value
from art_divqat.estimators.known_body import KnownBody
from art_divqat.estimators.quantized_export import ExportReport, check_images, export_quantized
from art_divqat.estimators.quantized_files import load_quantized, save_quantized
from art_divqat.estimators.standardisation import Architecture
from art_divqat.quantization import QuantizationBackend, QuantizationDescription, use_engine
from art_divqat.quantization._names import RUNTIMES
from art_divqat.quantization.backend import FrozenNetwork
from art_divqat.quantization.runtimes import in_runtime

# images on which a runtime is compared with torch's int8 network when a classifier is built
_FEW = 16


class QuantizedPyTorchClassifier(PyTorchClassifier):  # type: ignore[misc]
    """An ART classifier on an int8 network: `predict` runs the int8 kernels, gradients come from the frozen twin.

    The twin is the network as it was trained, with fake quantizers whose gradient is the straight-through one.
    White-box attacks (PGD, AutoPGD, DeepFool, Carlini-Wagner) work on it and are judged on the int8 network;
    :meth:`agreement_with_twin` says how good a substitute it is. The classifier is finished: it refuses to be fitted.

    Built by :class:`~art_divqat.defences.trainer.QATTrainer`, :class:`~art_divqat.defences.trainer.DivQATTrainer`,
    :func:`~art_divqat.defences.trainer.quantize_post_training` and :meth:`load`.

    What answers is the backend's engine: torch's int8 kernels, or onnxruntime or OpenVINO with an ONNX file of the same
    network, which is compared with torch's on 16 images of noise when the classifier is built, and refused if the
    answers are more than a tenth of their standard deviation apart on average, and more than three times as far as
    noise of 10⁻⁵ moves torch's own. Gradients come from the twin all the same.

    :param prepared: a network prepared and trained or calibrated by `backend`; it is copied and frozen.
    :param backend: from :func:`~art_divqat.quantization.get_backend`, with its engine.
    :param input_shape: (channels, height, width).
    :param nb_classes: number of logits, at least 2; also 2 for a network of a single one.
    :param architecture: the name of a registered model, or a function that builds the network, for :meth:`load`.
    :param loss: that gradients are taken of: cross-entropy if not given; `BCEWithLogitsLoss` or `BCELoss` for a network
        of a single logit or probability, which it then answers with, (N, 1), as ART has it.
    :param device_type: `cpu`; int8 kernels run nowhere else.
    :raises UserError: if `device_type` is not `cpu`, or the engine is a runtime that cannot run the network, or answers
        otherwise.

    >>> from art_divqat.models import build_model
    >>> from art_divqat.quantization import get_backend
    >>> backend = get_backend("fx")
    >>> prepared = backend.prepare(build_model("lenet5", (1, 8, 8), 10, seed=0), (1, 8, 8))
    >>> backend.calibrate(prepared, [torch.rand(32, 1, 8, 8)])
    >>> classifier = QuantizedPyTorchClassifier(prepared, backend, (1, 8, 8), 10)
    >>> x = np.random.default_rng(0).random((5, 1, 8, 8))
    >>> classifier.predict(x).shape, classifier.loss_gradient(x, np.zeros(5, np.int64)).shape
    ((5, 10), (5, 1, 8, 8))
    """

    def __init__(
        self,
        prepared: nn.Module,
        backend: QuantizationBackend,
        input_shape: tuple[int, ...],
        nb_classes: int,
        *,
        architecture: Architecture | None = None,
        loss: nn.Module | None = None,
        channels_first: bool = True,
        clip_values: Any = (0.0, 1.0),
        preprocessing_defences: Any = None,
        postprocessing_defences: Any = None,
        preprocessing: Any = (0.0, 1.0),
        device_type: str = "cpu",
    ) -> None:
        if device_type != "cpu":
            raise UserError(
                f"Int8 networks run on the CPU only: use device_type='cpu' (got {device_type!r}), or keep the "
                "full-precision classifier for a GPU."
            )
        check_int(self, "nb_classes", nb_classes, 2)
        twin = backend.freeze(prepared).cpu()
        super().__init__(
            model=twin,
            loss=nn.CrossEntropyLoss() if loss is None else loss,
            input_shape=tuple(input_shape),
            nb_classes=nb_classes,
            optimizer=None,
            channels_first=channels_first,
            clip_values=clip_values,
            preprocessing_defences=preprocessing_defences,
            postprocessing_defences=postprocessing_defences,
            preprocessing=preprocessing,
            device_type="cpu",
        )
        self.backend = backend
        self.architecture = architecture
        network = backend.convert(twin.network)
        if backend.engine in RUNTIMES:
            noise, _ = self._apply_preprocessing(check_images(self, _FEW), y=None, fit=False)
            network = in_runtime(backend, twin.network, network, torch.from_numpy(np.asarray(noise, np.float32)))
        # In a list, so that the twin's moves between devices and modes pass the int8 network by.
        self._int8 = [network]
        self.memory: KnownRows | KnownBody | None = None

    @property
    def twin(self) -> FrozenNetwork:
        """The frozen fake-quantized network that gradients come from; the same as `model`."""
        twin: FrozenNetwork = self._model._model
        return twin

    @property
    def int8_network(self) -> nn.Module:
        """The network that answers, a :class:`~art_divqat.quantization.runtimes.RuntimeNetwork` where the engine is a
        runtime; run it inside `use_engine(classifier.backend.engine)`.
        """
        return self._int8[0]

    @property
    def description(self) -> QuantizationDescription:
        """Backend, the engine that answers, bits and size in bytes of the int8 network."""
        return self.backend.describe(self.int8_network)

    def predict(
        self, x: NDArray[Any], batch_size: int = 128, training_mode: bool = False, **kwargs: Any
    ) -> NDArray[np.float32]:
        """The int8 network's logits, or what the postprocessors make of them; float32 of shape (N, classes), or (N, 1).

        `x` is cast to float32, so that ART's decision-based attacks work with numpy 2. `training_mode` has no effect:
        an int8 network has one mode.
        """
        del training_mode, kwargs
        results = self.memory(x) if self.memory is not None and len(x) else self._int8_answers(x, batch_size)
        answers: NDArray[np.float32] = self._apply_postprocessing(preds=results, fit=False)
        return answers

    def _int8_answers(self, x: NDArray[Any], batch_size: int = 128) -> NDArray[np.float32]:
        return self._answers(x, batch_size, lambda batch: self.int8_network(batch))

    def remember(self, path: Path | None = None) -> None:
        """Ask the network once about an image, whoever asks again: a pass over a large one is dear.

        :param path: a file that other processes share; see :class:`~art_divqat.data.known_rows.KnownRows`.
        """
        self.memory = KnownRows(self._int8_answers, chunk_of(self.input_shape, KNOWN_BATCH), path)

    def remember_body(self, path_of: Callable[[str], Path | None] = lambda _: None) -> None:
        """Run the network's body once for an image, whoever asks again, of all networks with that body.

        :param path_of: the file that other processes share, by the hash of the body; see
            :class:`~art_divqat.estimators.known_body.KnownBody`.
        :raises UserError: for a network that has no place to be cut at.
        """
        self.memory = KnownBody(self.int8_network, self.backend.engine, self.input_shape, self._preprocessed, path_of)

    def agreement_with_twin(self, x: NDArray[Any], batch_size: int = 128) -> float:
        """Share of the images, in [0, 1], that the int8 network and its twin put in the same class.

        :raises UserError: for no images.
        """
        if len(x) == 0:
            raise UserError("Agreement needs at least one image. Got none.")
        as_logits = class_logits(self)
        served = self._answers(x, batch_size, lambda batch: as_logits(self.int8_network(batch))).argmax(axis=1)
        trained = self._answers(x, batch_size, lambda batch: as_logits(self.twin(batch))).argmax(axis=1)
        return float(np.mean(served == trained))

    def _answers(self, x: NDArray[Any], batch_size: int, network: Callable[[torch.Tensor], Any]) -> NDArray[np.float32]:
        x = np.ascontiguousarray(x, dtype=np.float32)
        if len(x) == 0:
            return np.zeros((0, 1 if gives_one_value(self) else self.nb_classes), np.float32)
        batches = self._preprocessed(x).split(batch_size)
        with use_engine(self.backend.engine), torch.no_grad():
            return np.concatenate([network(batch).float().numpy() for batch in batches])

    def _preprocessed(self, x: NDArray[Any]) -> torch.Tensor:
        preprocessed, _ = self._apply_preprocessing(np.ascontiguousarray(x, np.float32), y=None, fit=False)
        return torch.from_numpy(np.ascontiguousarray(preprocessed, dtype=np.float32))

    def loss_gradient(self, x: Any, y: Any, training_mode: bool = False, **kwargs: Any) -> Any:
        """Gradient of the twin's loss with respect to `x`, of the shape of `x`; arrays and tensors alike.

        :param y: class ids (N,), one-hot rows or probabilities (N, classes).
        """
        if y.ndim == 1:
            # ART takes class ids here for some losses only
            if isinstance(y, torch.Tensor):
                y = nn.functional.one_hot(y.long(), self.nb_classes).float()
            else:
                y = np.eye(self.nb_classes, dtype=np.float32)[np.asarray(y, dtype=np.int64)]
        if gives_one_value(self):
            # ART makes rows of two a vector where its loss wants a column
            y = y[:, -1:]
        return super().loss_gradient(_as_float32(x), y, training_mode=False, **kwargs)

    def class_gradient(self, x: Any, label: Any = None, training_mode: bool = False, **kwargs: Any) -> Any:
        """Gradients of the twin's logits with respect to `x`, of shape (N, classes or 1, C, H, W).

        :raises UserError: for a label, where there is a single logit.
        """
        if label is not None and gives_one_value(self):
            raise UserError("A network of a single value has the gradient of that alone: leave label out.")
        return super().class_gradient(_as_float32(x), label, training_mode=False, **kwargs)

    def compute_loss(self, x: Any, y: Any, reduction: str = "none", **kwargs: Any) -> Any:
        """The twin's loss, which is what the gradients belong to."""
        return super().compute_loss(_as_float32(x), y, reduction=reduction, **kwargs)

    def get_activations(self, x: Any, layer: Any = None, batch_size: int = 128, framework: bool = False) -> Any:
        """Refused: int8 activations are packed, and those of the twin are not what is served.

        :raises UserError: always.
        """
        raise UserError("An int8 network has no activations to read: ask the full-precision classifier for them.")

    def fit(self, x: Any, y: Any, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: an int8 network cannot be trained.

        :raises UserError: always.
        """
        raise UserError("An int8 network cannot be fitted: train the full-precision classifier with QATTrainer.")

    def fit_generator(self, generator: Any, nb_epochs: int = 20, **kwargs: Any) -> NoReturn:
        """Refused: an int8 network cannot be trained.

        :raises UserError: always.
        """
        self.fit(None, None)

    def reset(self) -> NoReturn:
        """Refused: packed weights cannot be drawn anew.

        :raises UserError: always.
        """
        raise UserError("An int8 network has no fresh state to go back to: build a new full-precision network instead.")

    def clone_for_refitting(self) -> NoReturn:
        """Refused: the clone would keep the trained weights, and a thief built from it would be the victim.

        :raises UserError: always.
        """
        raise UserError("An int8 network cannot be cloned for refitting: build a fresh network with build_model.")

    def save(self, filename: str | Path, path: str | Path | None = None) -> None:
        """Write `classifier.json` and `twin.safetensors` into the folder `filename` (inside `path`, if given).

        :raises UserError: if the folder holds files of something else, or the loss or a defence cannot be written.
        """
        save_quantized(self, Path(filename) if path is None else Path(path) / filename)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        architecture: Architecture | None = None,
        engine: str | None = None,
        preprocessing_defences: Any = None,
        postprocessing_defences: Any = None,
    ) -> QuantizedPyTorchClassifier:
        """Read what :meth:`save` wrote; predictions are bit-identical on the same kind of CPU. Nothing is unpickled.

        The network is built anew, prepared as it was, filled with the twin's state, and converted again, for a runtime
        also written as ONNX and compared again.

        :param architecture: a registered model's name or a function that builds the network; needed where the saved
            classifier was built from a network without a name.
        :param engine: what is to answer, in place of the engine that it was saved with.
        :param preprocessing_defences: those of the saved classifier, which are objects and therefore not saved.
        :param postprocessing_defences: likewise.
        :raises UserError: for a missing, damaged or foreign file, an engine that this CPU lacks, 8-bit activations
            where its int8 kernels would overflow, an architecture that the weights do not fit, or a defence that is
            missing.
        """
        return load_quantized(cls, Path(folder), architecture, engine, preprocessing_defences, postprocessing_defences)

    def export(
        self,
        path: str | Path,
        format: str = "onnx",
        *,
        softmax: bool = False,
        postprocessor: Any = None,
        check_images: NDArray[Any] | None = None,
    ) -> ExportReport:
        """Write the quantized network for other runtimes, preprocessing included, and check the file's answers.

        :param format: `onnx` (QuantizeLinear and DequantizeLinear nodes; extra `onnx`) or `torchscript` (int8 kernels).
        :param softmax: end in probabilities instead of logits.
        :param postprocessor: a torch module, or an object with `as_module()`, put behind the softmax in the graph.
        :param check_images: images of shape (N, C, H, W) on which the file is compared with this classifier; noise
            from a fixed seed if not given.
        :return: an :class:`~art_divqat.estimators.quantized_export.ExportReport`.
        :raises UserError: for an unknown format, a postprocessor that is no module, a file that answers differently.
        :raises MissingExtraError: for `onnx` without the extra.
        """
        check_choice(self, "format", format, ("onnx", "torchscript"))
        return export_quantized(self, Path(path), format, softmax, postprocessor, check_images)

    def __deepcopy__(self, memo: dict[int, Any]) -> QuantizedPyTorchClassifier:
        copied = type(self)(
            self.twin.network,
            self.backend,
            self.input_shape,
            self.nb_classes,
            architecture=self.architecture,
            loss=copy.deepcopy(self._loss, memo),
            channels_first=self.channels_first,
            clip_values=copy.deepcopy(self.clip_values, memo),
            preprocessing_defences=copy.deepcopy(self.preprocessing_defences, memo),
            postprocessing_defences=copy.deepcopy(self.postprocessing_defences, memo),
            preprocessing=copy.deepcopy(self.preprocessing, memo),
        )
        memo[id(self)] = copied
        return copied

    def __getstate__(self) -> NoReturn:
        raise UserError("A quantized classifier is not pickled: use save(folder) and load(folder).")

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(backend={self.backend.name!r}, engine={self.backend.engine!r}, "
            f"input_shape={self.input_shape}, nb_classes={self.nb_classes}, clip_values={self.clip_values!r}, "
            f"preprocessing_defences={self.preprocessing_defences}, "
            f"postprocessing_defences={self.postprocessing_defences}, preprocessing={self.preprocessing})"
        )


def _as_float32(x: Any) -> Any:
    return x.float() if isinstance(x, torch.Tensor) else np.ascontiguousarray(x, dtype=np.float32)
