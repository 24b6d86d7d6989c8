"""Load external models as classifiers from files, folders or endpoints; code runs only where that was allowed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from art_divqat._files import first_line
from art_divqat._types import Shape
from art_divqat.errors import UserError
from art_divqat.victims.external.adapter import ExternalClassifier, normalised
from art_divqat.victims.external.classes import StatedClasses, stated_classes
from art_divqat.victims.external.identify import CODE, Kind, check_trust, identify
from art_divqat.victims.external.image_graph import described
from art_divqat.victims.external.settings import ExternalModel, local_path

if TYPE_CHECKING:
    from torch import nn

    from art_divqat.estimators.standardisation import Architecture


def load_external(
    model: ExternalModel,
    input_shape: Shape,
    nb_classes: int,
    *,
    trust_code: bool = False,
    device: str = "cpu",
    answers: Path | None = None,
    class_names: Sequence[str] = (),
) -> ExternalClassifier:
    """An ART classifier for a file, a folder or an endpoint; not yet probed, see :func:`adapter.probe`.

    :param input_shape: (channels, height, width) of the images it will be asked.
    :param trust_code: allow a factory, TorchScript or `torch.export` file, each of which is code.
    :param device: `cpu` or `cuda:i`; ONNX, OpenVINO and int8 models stay on the CPU.
    :param answers: the file that keeps an endpoint's answers; needed for an endpoint.
    :param class_names: of the data, for a model that answers with names, or has more classes than the data.
    :raises UserError: for anything that is not a whole model of a kind that can be read, or code without `trust_code`.
    """
    if model.source is None:
        raise UserError(
            "This model was an object of Python's, which no file holds: run the audit from Python with that object, "
            "art_divqat.audit_model(model, config='RUN/config.yaml')."
        )
    if model.factory is not None:
        check_trust(f"to be built by {model.factory}", model.source, trust_code)
    stated = stated_classes(model, nb_classes, class_names)
    if model.is_remote:
        return _endpoint(model, input_shape, stated, answers)
    nb_classes, class_names = stated.count, stated.of_the_data
    path = local_path(model.source)
    kind = identify(path)
    if kind in CODE:
        check_trust(CODE[kind], str(path), trust_code)
    if kind in ("onnx", "openvino"):
        return _graph(path, kind, model, input_shape, nb_classes, class_names)
    if kind == "saved" or (kind == "stored" and (path / "quantized").is_dir()):
        saved = _saved(path if kind == "saved" else path / "quantized", model, input_shape, nb_classes)
        saved.class_names = tuple(class_names)
        return saved
    from art_divqat.victims.external import torch_files

    network: nn.Module
    if kind in CODE:
        network = torch_files.read_program(path, kind)
    else:
        file = path / "weights.safetensors" if kind == "stored" else path
        architecture = model.architecture
        if kind == "stored" and architecture is None and model.factory is None:
            architecture = torch_files.architecture_of(path)
        state = torch_files.read_state(file)
        network = torch_files.build(architecture, model.factory, input_shape, nb_classes, str(path))
        if architecture is not None and (own := torch_files.classes_of(network, state)) > nb_classes:
            network = torch_files.build(architecture, None, input_shape, own, str(path))
        torch_files.fill(network, state, str(path))
    classifier = torch_files.classifier_of(network, model, input_shape, nb_classes, device, str(path))
    classifier.class_names = tuple(class_names)
    return classifier


def _graph(
    path: Path, kind: Kind, model: ExternalModel, input_shape: Shape, nb_classes: int, class_names: Sequence[str]
) -> ExternalClassifier:
    from art_divqat.victims.external import onnx_file, openvino_file

    if kind == "onnx":
        function, name = onnx_file.onnx_function(path, input_shape), "ONNX graph"
        quantizers = onnx_file.quantizers(path)
    else:
        function, name = openvino_file.openvino_function(path, input_shape), "OpenVINO model"
        quantizers = openvino_file.quantizers(path)
    return ExternalClassifier(
        normalised(function, model, input_shape),
        input_shape,
        nb_classes,
        description=str(path),
        architecture=described(name, quantizers),
        class_names=class_names,
    )


def _saved(folder: Path, model: ExternalModel, input_shape: Shape, nb_classes: int) -> ExternalClassifier:
    from art_divqat.estimators import QuantizedPyTorchClassifier
    from art_divqat.estimators.conventions import unit_predict

    named: Architecture | None = model.architecture
    if model.factory is not None:
        from art_divqat.victims.external.torch_files import build

        named = partial(build, None, model.factory, input_shape, nb_classes, str(folder))
    try:
        classifier = QuantizedPyTorchClassifier.load(folder, architecture=named)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{folder} holds no classifier that can be read: {first_line(error, 200)}") from None
    if tuple(classifier.input_shape) != input_shape:
        raise UserError(f"{folder} takes images of shape {tuple(classifier.input_shape)}; the data has {input_shape}.")
    plain = model.mean is None and model.std is None
    network = classifier.architecture if isinstance(classifier.architecture, str) else model.factory
    return ExternalClassifier(
        normalised(unit_predict(classifier) if plain else classifier.predict, model, input_shape),
        input_shape,
        nb_classes,
        white_box=(lambda outputs: classifier) if plain else None,
        description=str(folder),
        architecture=f"{network}, int8",
    )


def _endpoint(
    model: ExternalModel, input_shape: Shape, stated: StatedClasses, answers: Path | None
) -> ExternalClassifier:
    from art_divqat.estimators.remote import RemoteClassifier

    assert model.source is not None
    if answers is None:
        raise UserError("An endpoint needs a file that keeps its answers, so that none is paid for twice.")
    remote = RemoteClassifier(
        model.source,
        input_shape,
        stated.count,
        journal=answers,
        protocol=model.protocol,
        auth_env=model.auth_env,
        auth_header=model.auth_header,
        batch_size=model.batch_size,
        rate=model.rate,
        timeout=model.timeout,
        retries=model.retries,
        class_names=stated.names,
    )
    return ExternalClassifier(
        normalised(remote.predict, model, input_shape),
        input_shape,
        stated.count,
        repeat=normalised(remote.repeat, model, input_shape),
        description=remote.address,
        architecture="behind an endpoint",
        class_names=stated.of_the_data,
    )
