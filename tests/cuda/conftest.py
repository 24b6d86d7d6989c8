"""Where the tests of this folder run: on the GPU, or where ART_DIVQAT_CUDA_TESTS_ON says."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> str:
    """`cuda`, skipping where there is none; `cpu` to try the tests themselves without a GPU."""
    wanted = os.environ.get("ART_DIVQAT_CUDA_TESTS_ON", "cuda")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA GPU here; ART_DIVQAT_CUDA_TESTS_ON=cpu runs the same tests on the CPU")
    return wanted


@pytest.fixture
def gpu(device: str) -> str:
    """A GPU, for what the CPU does not do at all."""
    if not device.startswith("cuda"):
        pytest.skip("the CPU neither records graphs nor waits for anything")
    return device
