"""Shared fixtures: the real images, if they are here; ART kept out of the home folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("TQDM_DISABLE", "1")
# nothing of a test stays in the cache of whoever runs it; fonts that matplotlib has found there need not be found again
os.environ.setdefault("MPLCONFIGDIR", matplotlib.get_cachedir())
_CACHE = tempfile.TemporaryDirectory(prefix="art-divqat-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name
# No clock decides a test; in CI the examples are the same on every run, so that a red build means a change.
settings.register_profile("art-divqat", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("art-divqat")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with real images (torchvision's layout), from ART_DIVQAT_TEST_DATA; skips where it is absent."""
    root = os.environ.get("ART_DIVQAT_TEST_DATA", "")
    if not root or not Path(root).is_dir():
        pytest.skip("ART_DIVQAT_TEST_DATA does not name a folder with real images")
    return Path(root)


@pytest.fixture
def global_state_untouched() -> Iterator[None]:
    """Fail if the test disturbs numpy's, torch's or Python's global random state."""
    import random

    import torch

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()  # type: ignore[index]
    yield
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()  # type: ignore[index]
    assert before == after
