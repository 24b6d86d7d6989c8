"""The allocator's settings: what they are for, and that they are asked for in a process of ours alone."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from art_divqat import _memory

FAULTS = """
import resource, sys
import numpy as np
from art_divqat._memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are of glibc")
def test_what_is_freed_is_used_again() -> None:
    """64 MiB asked for ten times are cleared by the system each time, or not at all."""
    usual, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, check=True).stdout)
        for how in ("usual", "kept")
    )
    # pages of 4 KiB, or huge ones where the system has them
    assert kept < usual / 4


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def missing(name: object) -> object:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert not _memory.keep_freed_memory()
