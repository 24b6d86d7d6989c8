"""Names of the quantization backends, for modules that must not import torch."""

from __future__ import annotations

from importlib.util import find_spec

from art_divqat.errors import MissingExtraError

BACKENDS = ("fx", "pt2e")
PT2E_EXTRA = "Backend 'pt2e' needs torchao: pip install 'art-divqat[pt2e]', or use backend='fx'."


def check_installed(backend: str) -> None:
    """Refuse a backend whose library is not installed, without importing it.

    :raises MissingExtraError: for `pt2e` without torchao.
    """
    if backend == "pt2e" and find_spec("torchao") is None:
        raise MissingExtraError(PT2E_EXTRA)
