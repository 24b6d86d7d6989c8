"""A head on a public network is audited as a state dict as it is as an ONNX file, with the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from art_divqat.api import evaluate, prepare
from art_divqat.data import load_raw
from art_divqat.estimators.public import fit_head, public_features
from art_divqat.models import build_model
from art_divqat.models.weights import FrozenBody
from art_divqat.plan.config import make_config

SHAPE = (3, 66, 66)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probed")
    rng = np.random.default_rng(0)
    y = np.arange(200) % 3
    x = (rng.integers(0, 120, (200, *SHAPE)) + 60 * y[:, None, None, None]).astype(np.uint8)
    np.savez(folder / "d.npz", x_train=x[40:], y_train=y[40:], x_test=x[:40], y_test=y[:40])
    save_file(build_model("small-cnn", SHAPE, 9, seed=7).state_dict(), folder / "public.safetensors")
    raw = load_raw(f"npz:{folder / 'd.npz'}")
    features = public_features("small-cnn", str(folder / "public.safetensors"), SHAPE)
    network = nn.Sequential(FrozenBody(features.body), fit_head(features(raw.x), raw.y, 3)).eval()
    torch.save(network.state_dict(), folder / "victim.pt")
    return folder


def audit(folder: Path, output: Path, model: str, **options: Any) -> Any:
    given = {
        "dataset": f"npz:{folder / 'd.npz'}",
        "victims": [f"file:{folder / model}"],
        "query_pool": "in-distribution",
        "attacks": ["knockoff", "knockoff:image_size=33"],
        "budgets": [30],
        "seeds": 1,
        "jobs": 1,
        "device": "cpu",
        "control": False,
        "thief_model": "lenet5",
        "thief_recipe": {"epochs": 2},
        **options,
    }
    return evaluate(prepare(make_config(given)), output, store=output / "store")


def test_the_state_dict_is_read_by_the_name_of_its_form(folder: Path, tmp_path: Path) -> None:
    results = audit(folder, tmp_path / "pt", "victim.pt", external={"architecture": "probed:small-cnn"})
    assert results.data["model"]["classes"] == 3
    assert all(cell.metrics["victim_accuracy"] > 0.8 for cell in results.cells)
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    network = build_model("probed:small-cnn", SHAPE, 3, seed=0).eval()
    network.load_state_dict(torch.load(folder / "victim.pt", weights_only=True))
    torch.onnx.export(network, (torch.zeros(2, *SHAPE),), folder / "victim.onnx", input_names=["x"],
                      dynamic_axes={"x": {0: "n"}}, dynamo=False)  # fmt: skip
    same = audit(folder, tmp_path / "onnx", "victim.onnx")
    for ours, theirs in zip(results.cells, same.cells, strict=True):
        assert ours.attack == theirs.attack
        for name in ("victim_accuracy", "thief_accuracy", "agreement"):
            assert ours.metrics[name] == pytest.approx(theirs.metrics[name], abs=0.03)
