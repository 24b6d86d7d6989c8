"""What the tests of external models share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

SHAPE = (1, 8, 8)


def export_onnx(network: torch.nn.Module, path: Path, **options: Any) -> Path:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    torch.onnx.export(network, (torch.rand(4, *SHAPE),), str(path), dynamo=False, input_names=["image"], **options)
    return path
