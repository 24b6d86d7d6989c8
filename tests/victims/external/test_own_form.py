"""Pictures take the form that the audited model says of itself; no code runs and no image is paid for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.external_models import export_onnx

from art_divqat.api import prepare
from art_divqat.data.pictures import OWN_FORM, ImageForm
from art_divqat.errors import UserError
from art_divqat.plan.config import make_config
from art_divqat.victims.external.own_form import form_in, own_form
from art_divqat.victims.external.settings import ExternalModel


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (20 + number, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    return f"folder:{tmp_path / 'pictures'}"


def prepared(source: str | Path, dataset: str, **options: Any) -> tuple[Any, Any, str]:
    external = {"timeout": 5.0, "retries": 0}
    config = prepare(
        make_config({"victims": [f"file:{source}" if isinstance(source, Path) else source], "dataset": dataset,
                     "external": external, **options})
    )  # fmt: skip
    return config.image_size, config.image_channels, config.image_fit


def test_an_onnx_file(tmp_path: Path, network: torch.nn.Module, pictures: str) -> None:
    path = export_onnx(network, tmp_path / "m.onnx")
    assert prepared(path, pictures) == ((8, 8), 1, "crop")
    assert prepared(path, pictures, image_size="16x12", image_fit="squash") == ((16, 12), 1, "squash")
    assert prepared(path, "digits") == (None, None, "crop"), "arrays have the size that they have"
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read as an ONNX model"):
        prepared(path, pictures)


def test_a_named_set_of_pictures_takes_the_models_size_too(tmp_path: Path, network: torch.nn.Module) -> None:
    path = export_onnx(network, tmp_path / "m.onnx")
    assert prepared(path, "CUB200") == ((8, 8), 1, "crop")
    assert prepared(path, "caltech101", image_size="16") == ((16, 16), 1, "crop")


def test_forms_that_say_nothing(models: dict[str, Path], pictures: str) -> None:
    for name in ("m.pt", "script.pt", "m.pt2", "m.safetensors"):
        assert prepared(models[name], pictures, model="lenet5") == (None, None, "crop")
    assert own_form(ExternalModel()) == OWN_FORM
    assert form_in(["batch", 3, "height", "width"]) == ImageForm(None, 3)
    assert form_in([None, 0, 0, 3]) == ImageForm(None, 3)
    assert form_in([4, 5, 6, 7]) == form_in([1, 64]) == OWN_FORM


def test_a_saved_classifier(tmp_path: Path, pictures: str) -> None:
    for folder in (tmp_path / "saved", tmp_path / "stored" / "quantized"):
        folder.mkdir(parents=True)
        (folder / "classifier.json").write_text(json.dumps({"input_shape": [3, 48, 32]}))
        assert prepared(tmp_path / folder.relative_to(tmp_path).parts[0], pictures) == ((48, 32), 3, "crop")
    (tmp_path / "saved" / "classifier.json").write_text("[]")
    assert prepared(tmp_path / "saved", pictures) == (None, None, "crop")


def test_an_endpoint_is_asked_for_its_metadata_alone(pictures: str) -> None:
    pytest.importorskip("httpx")
    from support.oip_server import Server

    with Server(lambda x: np.zeros((len(x), 2))) as server:
        assert prepared(server.v2, pictures) == ((8, 8), 1, "crop")
        assert prepared(server.base, pictures) == (None, None, "crop"), "JSON has no metadata"
        assert not server.paid
    with pytest.raises(UserError, match=r"does not say which images it takes: .* image_size=224"):
        prepared(server.v2, pictures)
    assert prepared(server.v2, pictures, image_size=64) == ((64, 64), None, "crop")
    assert prepared(server.v2, "digits") == (None, None, "crop")
