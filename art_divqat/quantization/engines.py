"""Quantized engines: find the int8 kernels that this CPU has, and use one without changing global state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from art_divqat.errors import UserError

_PREFERRED = ("x86", "fbgemm", "onednn", "qnnpack")


def supported_engines() -> list[str]:
    """The int8 engines that torch can run on this CPU, best first.

    >>> set(supported_engines()) <= {"x86", "fbgemm", "onednn", "qnnpack"}
    True
    """
    present = set(torch.backends.quantized.supported_engines)
    return [engine for engine in _PREFERRED if engine in present]


def check_engine(engine: str | None = None) -> str:
    """Return `engine` if this CPU has it, or the best one it has if `engine` is None.

    :raises UserError: for an engine this CPU lacks (the message lists those it has), or where there is none at all.

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
    if engine not in engines:
        raise UserError(f"Engine {engine!r} is not available on this CPU: choose one of {', '.join(engines)}.")
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

    >>> before = torch.backends.quantized.engine
    >>> with use_engine(supported_engines()[-1]):
    ...     pass
    >>> torch.backends.quantized.engine == before
    True
    """
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        yield
    finally:
        torch.backends.quantized.engine = before
