"""TensorFlow in the process: Triton is hidden where it would end it, and nowhere else."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from art_divqat._tensorflow import keep_triton_out


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("loaded", [(), ("tensorflow",), ("triton",), ("tensorflow", "triton")])
def test_it_is_hidden_after_tensorflow_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, loaded: tuple[str, ...], gpu: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    for name in ("tensorflow", "triton"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        if name not in loaded:
            monkeypatch.delitem(sys.modules, name)
    keep_triton_out()
    found = sys.modules.get("triton", "not loaded")
    if loaded == ("tensorflow",) and not gpu:
        assert found is None
    else:
        assert (found == "not loaded") == ("triton" not in loaded)
