"""Shared fixtures: single-threaded torch, the real images if they are here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _quiet_art(tmp_path_factory: pytest.TempPathFactory) -> None:
    """ART writes into its data path on import and on pickling; keep that out of the home folder."""
    os.environ.setdefault("TQDM_DISABLE", "1")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with real images (torchvision's layout), from ART_DIVQAT_TEST_DATA; skips where it is absent."""
    root = os.environ.get("ART_DIVQAT_TEST_DATA", "")
    if not root or not Path(root).is_dir():
        pytest.skip("ART_DIVQAT_TEST_DATA does not name a folder with real images")
    return Path(root)
