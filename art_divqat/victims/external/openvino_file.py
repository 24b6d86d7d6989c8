"""OpenVINO IR files: run them through OpenVINO, as a black box on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from art_divqat._files import first_line
from art_divqat._types import Shape
from art_divqat.errors import MissingExtraError, UserError
from art_divqat.victims.external.image_graph import Answer, image_function

# two threads may add in another order; and on some CPUs the default precision is bfloat16, whose answers are others
_SETTINGS = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
_QUANTIZERS = ("FakeQuantize", "FakeConvert")


def openvino_function(path: Path, shape: Shape) -> Answer:
    """The function of an OpenVINO model with one image input; channels-last and fixed batches are seen to.

    :raises MissingExtraError: without openvino.
    :raises UserError: for a damaged file, weights that are missing, several inputs, or one that is no batch of images
        of this shape.
    """
    model = _model(path)
    if len(model.inputs) != 1 or not model.inputs[0].element_type.is_real():
        signature = ", ".join(f"{each.any_name}: {each.element_type.get_type_name()}" for each in model.inputs)
        raise UserError(f"{path} takes {signature or 'nothing'}; expected one float tensor of images.")
    import openvino

    try:
        request = openvino.Core().compile_model(model, "CPU", _SETTINGS).create_infer_request()
    except RuntimeError as error:
        raise _unreadable(path, error) from None
    outputs = [index for index, each in enumerate(model.outputs) if len(each.partial_shape) == 2] or [0]

    def run(images: NDArray[Any]) -> Any:
        return request.infer({0: images})[outputs[0]]

    return image_function(run, _shape(model), shape, path, model.inputs[0].element_type.to_dtype())


def declared_shape(path: Path) -> list[Any]:
    """What an OpenVINO model says of the shape of its first input: a number, or None, for each axis.

    :raises MissingExtraError: without openvino.
    :raises UserError: for a damaged file.
    """
    model = _model(path)
    return _shape(model) if model.inputs else []


def quantizers(path: Path) -> int:
    """How many operations of an OpenVINO model quantize."""
    return sum(each.get_type_name() in _QUANTIZERS for each in _model(path).get_ops())


def _shape(model: Any) -> list[Any]:
    return [side.get_length() if side.is_static else None for side in model.inputs[0].partial_shape]


def _model(path: Path) -> Any:
    try:
        import openvino
    except ImportError:
        raise MissingExtraError(
            f"{path} is an OpenVINO model, and openvino is not installed: pip install 'art-divqat[openvino]'."
        ) from None
    if not path.with_suffix(".bin").is_file():
        raise UserError(f"{path} has no weights beside it: put {path.with_suffix('.bin').name} into the same folder.")
    try:
        return openvino.Core().read_model(str(path))
    except RuntimeError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    # the first lines of OpenVINO's messages say where in its own source
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "src/" not in line]
    reason = lines[0][:200] if lines else first_line(error, 200)
    return UserError(f"{path} cannot be read as an OpenVINO model: {reason}")
