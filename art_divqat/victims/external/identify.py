"""Identify model files: tell their kind from the content, never by running them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from art_divqat.errors import UserError

Kind = Literal["safetensors", "state-dict", "torchscript", "exported", "onnx", "openvino", "saved", "stored"]
_INSTEAD = "export the same network as ONNX, with its quantize operations, and audit that file"
# what people put on boards and is not read here
_FOR_BOARDS = {
    ".pte": f"an ExecuTorch program, made for one device's kernels: {_INSTEAD}",
    ".tflite": f"a LiteRT (TensorFlow Lite) model: {_INSTEAD}",
    ".bin": "an OpenVINO model's weights: give the .xml beside it",
}
CODE: dict[str, str] = {
    "torchscript": "a TorchScript program, which torch would run",
    "exported": "a torch.export program, which torch would unpack and run",
}


def identify(path: Path) -> Kind:
    """What is at a path: a kind of file, a folder of `QuantizedPyTorchClassifier.save`, or one of the victim store.

    :raises UserError: for anything else.
    """
    if path.is_dir():
        return _folder(path)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return "safetensors"
    if suffix == ".onnx":
        return "onnx"
    if suffix == ".xml":
        return "openvino"
    if suffix == ".pt2":
        return "exported"
    if suffix in _FOR_BOARDS and (suffix != ".bin" or path.with_suffix(".xml").is_file()):
        raise UserError(f"{path} is {_FOR_BOARDS[suffix]}.")
    if suffix not in (".pt", ".pth", ".bin", ".ckpt", ".ts"):
        raise UserError(
            f"{path} is no kind of model that can be read: expected .safetensors, .pt or .pth, .pt2, .onnx, .xml, or a "
            "folder of a saved classifier."
        )
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start != b"PK\x03\x04":
            return "state-dict"
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}.") from None
    parts = {tuple(name.split("/")[1:2]) for name in names}
    if ("code",) in parts or ("constants.pkl",) in parts:
        return "torchscript"
    if any(
        name.endswith(("archive_format", "models/model.json", "serialized_exported_program.json")) for name in names
    ):
        return "exported"
    return "state-dict"


def _folder(path: Path) -> Kind:
    if (path / "classifier.json").is_file():
        return "saved"
    if (path / "quantized" / "classifier.json").is_file() or (path / "weights.safetensors").is_file():
        return "stored"
    raise UserError(
        f"The folder {path} holds no model of this package: expected classifier.json, or victim.json beside weights."
    )


def check_trust(what: str, source: str, trust_code: bool) -> None:
    """Refuse to run somebody's code unless that was asked for.

    :raises UserError: saying what would run.
    """
    if not trust_code:
        raise UserError(
            f"{source} is {what}: loading it runs its code on this machine. Add --trust-code if you trust who made it."
        )
