"""Quantization: one protocol, one module per backend; the only package that imports a quantization library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_names": ["BACKENDS"],
        "backend": ["QuantizationBackend", "QuantizationDescription", "get_backend", "serialized_bytes"],
        "engines": ["check_engine", "needs_reduced_range", "supported_engines", "use_engine"],
    },
)

if TYPE_CHECKING:
    from art_divqat.quantization._names import BACKENDS as BACKENDS
    from art_divqat.quantization.backend import QuantizationBackend as QuantizationBackend
    from art_divqat.quantization.backend import QuantizationDescription as QuantizationDescription
    from art_divqat.quantization.backend import get_backend as get_backend
    from art_divqat.quantization.backend import serialized_bytes as serialized_bytes
    from art_divqat.quantization.engines import check_engine as check_engine
    from art_divqat.quantization.engines import needs_reduced_range as needs_reduced_range
    from art_divqat.quantization.engines import supported_engines as supported_engines
    from art_divqat.quantization.engines import use_engine as use_engine
