"""Quantized engines: find the int8 kernels that this CPU has, and use one without changing global state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from art_divqat.errors import UserError
from art_divqat.quantization._names import RUNTIMES, TORCH_ENGINES, check_runtime


def supported_engines() -> list[str]:
    """The int8 engines that torch can run on this CPU, best first.

    >>> set(supported_engines()) <= {"x86", "fbgemm", "onednn", "qnnpack"}
    True
    """
    present = set(torch.backends.quantized.supported_engines)
    return [engine for engine in TORCH_ENGINES if engine in present]


def check_engine(engine: str | None = None) -> str:
    """Return `engine` if it can answer here, or the best of torch's own if `engine` is None.

    :param engine: one of :func:`supported_engines`, or a runtime: `onnxruntime` or `openvino`.
    :raises UserError: for an engine this CPU lacks (the message lists those it has), or where torch has none at all.
    :raises MissingExtraError: for a runtime that is not installed.

    >>> check_engine("tpu")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: Engine 'tpu' is not available on this CPU: choose one of ...
    """
    engines = supported_engines()
    if not engines:
        raise UserError("This build of torch has no int8 engine for this CPU: install one that has x86 or qnnpack.")
    if engine is None:
        return engines[0]
    if engine in RUNTIMES:
        check_runtime(engine)
    elif engine not in engines:
        known = ", ".join((*engines, *RUNTIMES))
        raise UserError(f"Engine {engine!r} is not available on this CPU: choose one of {known}.")
    return engine


def needs_reduced_range(engine: str) -> bool:
    """Whether activations must stay within 7 bits for `engine` on this CPU.

    Without VNNI, the x86 engines add pairs of 8-bit products in 16 bits, which activations above 127 overflow: sums are
    off by several steps, without a word. With it, the full range is safe, and finer.
    """
    if engine == "qnnpack":
        return False
    probe = getattr(torch.cpu, "_is_vnni_supported", None)
    return not (probe is not None and bool(probe()))


@contextlib.contextmanager
def use_engine(engine: str) -> Iterator[None]:
    """Make `engine` torch's quantized engine inside the block and restore the one before, whatever happens.

    A runtime, such as `onnxruntime`, is none of torch's: torch's stays as it is.

    >>> before = torch.backends.quantized.engine
    >>> with use_engine(supported_engines()[-1]):
    ...     pass
    >>> torch.backends.quantized.engine == before
    True
    """
    before = torch.backends.quantized.engine
    if engine not in RUNTIMES:
        torch.backends.quantized.engine = engine
    try:
        yield
    finally:
        torch.backends.quantized.engine = before
