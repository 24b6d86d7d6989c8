"""`art-divqat doctor`: check the installation, and name a remedy for each problem."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Literal

import typer

State = Literal["ok", "note", "problem"]
_REQUIRED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "adversarial-robustness-toolbox": "art",
    "torchattacks": "torchattacks",
    "numpy": "numpy",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "safetensors": "safetensors",
    "joblib": "joblib",
    "pydantic": "pydantic",
    "matplotlib": "matplotlib",
    "jinja2": "jinja2",
}
_EXTRAS = {
    "torchao": ("torchao", "pt2e", "the pt2e quantization backend"),
    "onnx": ("onnx", "onnx", "export to ONNX"),
    "onnxruntime": ("onnxruntime", "onnx", "auditing ONNX models, int8 networks in onnxruntime"),
    "openvino": ("openvino", "openvino", "auditing OpenVINO models, int8 networks in OpenVINO"),
    "httpx": ("httpx", "remote", "auditing live endpoints"),
    "datasets": ("datasets", "datasets", "reading hf: data sets"),
    "mlflow-skinny": ("mlflow", "mlflow", "logging to MLflow"),
    "ray": ("ray", "ray", "running on several machines"),
}


@dataclass(frozen=True)
class Diagnosis:
    """One line of the examination."""

    name: str
    state: State
    text: str


def doctor() -> None:
    """Examine this installation: versions, ART, quantization engines, devices and extras, each problem with its remedy.

    Ends with exit code 1 if there is a problem; an extra that is not installed is
    none.
    """
    marks = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}
    diagnoses = []
    for diagnosis in examine():
        diagnoses.append(diagnosis)
        typer.echo(f"{marks[diagnosis.state]} {diagnosis.name}: {diagnosis.text}")
    problems = sum(diagnosis.state == "problem" for diagnosis in diagnoses)
    typer.echo("Everything that is needed works." if not problems else f"{problems} problems.")
    if problems:
        raise typer.Exit(1)


def examine() -> Iterator[Diagnosis]:
    """Every finding; nothing that is missing or broken stops the others."""
    # torch logs a deprecation of its own when torchao registers its types
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    yield Diagnosis("python", "ok", f"{platform.python_version()}, {platform.platform()}, {sys.executable}")
    for package, module in _REQUIRED.items():
        yield _package(package, module, f"pip install --force-reinstall {package}", "problem")
    for package, (module, extra, purpose) in _EXTRAS.items():
        yield _package(package, module, f"{purpose} needs it: pip install 'art-divqat[{extra}]'", "note")
    checks: tuple[tuple[str, Callable[[], Diagnosis]], ...] = (
        ("ART classifiers", _art),
        ("quantization engines", _engines),
        ("devices", _devices),
        ("cache", _cache),
    )
    for name, check in checks:
        try:
            yield check()
        except Exception as error:
            yield Diagnosis(name, "problem", f"{type(error).__name__}: {_short(error)}")


def _package(package: str, module: str, remedy: str, missing: State) -> Diagnosis:
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        return Diagnosis(package, missing, f"not installed; {remedy}")
    try:
        import_module(module)
    except Exception as error:
        return Diagnosis(package, "problem", f"{version} cannot be imported ({_short(error)}); {remedy}")
    return Diagnosis(package, "ok", version)


def _art() -> Diagnosis:
    from art.attacks.extraction import CopycatCNN, KnockoffNets
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork, PyTorchClassifier

    names = [each.__name__ for each in (PyTorchClassifier, BlackBoxClassifierNeuralNetwork, KnockoffNets, CopycatCNN)]
    return Diagnosis("ART classifiers", "ok", f"{', '.join(names)} import")


def _engines() -> Diagnosis:
    import torch

    engines = [name for name in torch.backends.quantized.supported_engines if name != "none"]
    if not engines:
        remedy = "int8 victims cannot run: install a torch wheel for this processor that has fbgemm, x86 or qnnpack"
        return Diagnosis("quantization engines", "problem", f"none; {remedy}")
    return Diagnosis("quantization engines", "ok", ", ".join(engines))


def _devices() -> Diagnosis:
    import os

    import torch

    cores = f"{os.cpu_count()} CPU cores"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Diagnosis("devices", "ok", f"{cores}; {', '.join(names)}")
    return Diagnosis("devices", "note", f"{cores}; no GPU that torch can use: the paper preset will be slow")


def _cache() -> Diagnosis:
    import tempfile

    from art_divqat._files import default_store

    folder = default_store()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"{error.strerror or error}; point XDG_CACHE_HOME at a folder that can be written"
        return Diagnosis("cache", "problem", f"{folder}: {reason}")
    return Diagnosis("cache", "ok", str(folder))


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
