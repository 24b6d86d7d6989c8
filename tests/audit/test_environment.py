"""What a run says of the machine that it ran on."""

from __future__ import annotations

import sys

import pytest
import torch

from art_divqat.audit.environment import environment
from art_divqat.quantization.engines import needs_reduced_range


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc/cpuinfo")
def test_instructions_are_those_that_torch_finds() -> None:
    instructions = environment("cpu")["instructions"]
    capability = torch.backends.cpu.get_cpu_capability()
    assert ("avx512f" in instructions) == (capability == "AVX512") or capability not in ("AVX2", "AVX512")
    assert ("avx2" in instructions) or capability not in ("AVX2", "AVX512")
    if "avx2" in instructions:
        # 7 bits of activation exactly where a run says nothing of VNNI
        assert needs_reduced_range("x86") == ("avx512_vnni" not in instructions)


def test_nothing_is_said_where_the_system_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", no_file)
    described = environment("cpu")
    assert described["instructions"] == []
    assert described["processor"]
