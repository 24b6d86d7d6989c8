"""Names of the quantization backends and of the runtimes that can answer, for modules that must not import torch."""

from __future__ import annotations

from importlib.util import find_spec

from art_divqat.errors import MissingExtraError

BACKENDS = ("fx", "pt2e")
PT2E_EXTRA = "Backend 'pt2e' needs torchao: pip install 'art-divqat[pt2e]', or use backend='fx'."
# runtimes of other projects that run an ONNX file of the int8 network: the extra that installs each, and its libraries
RUNTIMES = {
    "onnxruntime": ("onnx", ("onnx", "onnxscript", "onnxruntime")),
    "openvino": ("openvino", ("onnx", "onnxscript", "openvino")),
}

TORCH_ENGINES = ("x86", "fbgemm", "onednn", "qnnpack")
ENGINES = (*TORCH_ENGINES, *RUNTIMES)


def check_installed(backend: str) -> None:
    """Refuse a backend whose library is not installed, without importing it.

    :raises MissingExtraError: for `pt2e` without torchao.
    """
    if backend == "pt2e" and find_spec("torchao") is None:
        raise MissingExtraError(PT2E_EXTRA)


def check_runtime(engine: str) -> None:
    """Refuse a runtime that is not installed, or not all that writes its file, without importing any of it.

    :raises MissingExtraError: naming the library that is missing.
    """
    extra, libraries = RUNTIMES[engine]
    for library in libraries:
        if not _is_there(library):
            raise MissingExtraError(
                f"engine={engine!r} needs {library}: pip install 'art-divqat[{extra}]', or leave engine out for the "
                "int8 kernels of torch."
            )


def _is_there(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ValueError:
        # in sys.modules without a specification
        return False
