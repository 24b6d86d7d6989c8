"""The plan that `--dry-run` prints."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.digits_victim import victim
from support.picture_trees import cub200, indoor67

from art_divqat.api import prepare
from art_divqat.audit.estimate import _seconds_an_image, estimate
from art_divqat.cli.dry_run import show_plan
from art_divqat.errors import UserError
from art_divqat.models import build_model
from art_divqat.plan.config import make_config


def test_it_says_what_is_done_to_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("Train", 20), ("valid", 4)):
        for name in ("a", "b\x1b"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 65536, (12, 10 + number % 2)).astype(np.uint16)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.png")
            (tmp_path / part / name / "x.heic").write_bytes(b"0")
    config = prepare(make_config({"dataset": f"folder:{tmp_path}", "budgets": [8], "seeds": 1, "image_size": "16x8",
                                  "thief_recipe": {"epochs": 1}, "evasion": {"images": 4, "steps": 1}}))  # fmt: skip
    show_plan(config, json_output=False)
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:5] == [
        "images    the test images are those of valid",
        "          pictures of 2 sizes resized to 16×8, bilinear, centre crop",
        "          48 of 48 pictures of 16-bit grey: scaled to 8 bits",
        "          4 files skipped, no picture in a class folder: 4 .heic; the first is Train/a/x.heic",
    ]
    show_plan(config, json_output=True)
    plan = json.loads(capsys.readouterr().out)
    assert len(plan["plan"]["data_notes"]) == 4
    assert (plan["config"]["image_size"], plan["config"]["image_fit"]) == ([16, 8], "crop")


def test_it_says_what_is_done_to_a_named_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cub200(tmp_path)
    indoor67(tmp_path)
    config = prepare(make_config({"dataset": "CUB200", "query_pool": "Indoor67", "data_root": tmp_path, "seeds": 1,
                                  "budgets": [8], "image_size": "8", "thief_recipe": {"epochs": 1},
                                  "evasion": {"images": 0}}))  # fmt: skip
    show_plan(config, json_output=True)
    plan = json.loads(capsys.readouterr().out)
    assert (plan["config"]["dataset"], plan["config"]["query_pool"]) == ("cub200", "indoor67")
    assert "whole pictures, not cut to their bounding boxes" in plan["plan"]["data_notes"]
    (tmp_path / "CUB_200_2011" / "train_test_split.txt").unlink()
    with pytest.raises(UserError, match=r"lacks train_test_split\.txt: unpack CUB_200_2011\.tgz again"):
        show_plan(config, json_output=True)


def options(**given: Any) -> dict[str, Any]:
    small = {"budgets": [8], "seeds": 1, "thief_recipe": {"epochs": 1}, "evasion": {"images": 0}}
    return {"dataset": "digits", "thief_model": "lenet5", "query_pool": "in-distribution", **small, **given}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    network = victim("lenet5", 12).model.eval()
    torch.save(network.state_dict(), folder / "m.pt")
    torch.save(network, folder / "pickled.pt")
    other = build_model("small-cnn", (1, 8, 8), 10, seed=0)
    torch.save(other.state_dict(), folder / "other.pt")
    torch.jit.trace(network, torch.rand(2, 1, 8, 8)).save(str(folder / "script.pt"))
    return folder


@pytest.mark.parametrize(
    ("file", "external", "message"),
    [
        ("m.pt", {"factory": "no_such_module:build"}, "no_such_module:build failed"),
        ("m.pt", {"factory": "torch.nn:Identity"}, "does not fit the network"),
        ("m.pt", {"factory": "os:getcwd"}, "expected a torch.nn.Module"),
        ("pickled.pt", {"architecture": "lenet5"}, "pickled objects"),
        ("other.pt", {"architecture": "lenet5"}, "does not fit the network"),
        ("m.pt", {"architecture": "lenet5", "mean": [50.0]}, "no better than chance"),
    ],
)
def test_a_model_that_cannot_be_loaded_fails_in_the_plan(
    models: Path, file: str, external: dict[str, Any], message: str
) -> None:
    config = prepare(make_config(options(victims=[f"file:{models / file}"], external=external, trust_code=True)))
    with pytest.raises(UserError, match=message) as caught:
        show_plan(config, json_output=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("file", "external"), [("m.pt", {"architecture": "lenet5"}), ("script.pt", {})])
def test_the_plan_says_what_the_model_is(
    models: Path, tmp_path: Path, file: str, external: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    config = prepare(make_config(options(victims=[f"file:{models / file}"], external=external, trust_code=True)))
    show_plan(config, json_output=False, folder=tmp_path / "run")
    rows = {line[:9].strip(): line[10:] for line in capsys.readouterr().out.splitlines()}
    assert re.fullmatch(r"\w+, [\d,]+ parameters", rows["model"])
    assert (rows["input"], rows["outputs"]) == ("images of 1×8×8, in [0, 1]", "10 logits")
    right, images = map(int, re.findall(r"(\d+) of (\d+) test images", rows["accuracy"])[0])
    assert right > 0.8 * images == 0.8 * 128
    assert rows["thief"] == "lenet5"
    assert rows["victims"].startswith("external:name=")
    assert "standard" not in rows["victims"]
    assert rows["control"] == "standard (lenet5), trained here on the same data, undefended"
    assert "no attack was run" in rows["time"]
    assert not (tmp_path / "run").exists()


def test_the_plan_says_what_the_control_costs_or_that_there_is_none(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = options(victims=[f"file:{models / 'm.pt'}"], external={"architecture": "lenet5"}, attacks=["knockoff"])
    show_plan(prepare(make_config(given)), json_output=False)
    lines = capsys.readouterr().out.splitlines()
    (first,) = (number for number, line in enumerate(lines) if line.startswith("control"))
    assert re.match(r" {10}2 of the cells, about \d+ s; --no-control leaves it out$", lines[first + 1])
    show_plan(prepare(make_config(given)), json_output=True)
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert plan["cells"] == 4
    assert {key: plan["control"][key] for key in ("victim", "model", "cells")} == {
        "victim": "standard", "model": "lenet5", "cells": 2,
    }  # fmt: skip
    assert 0 < plan["control"]["seconds"] <= plan["seconds"]
    show_plan(prepare(make_config({**given, "control": False})), json_output=False)
    assert "control   none: a model that is not stolen will be rated inconclusive" in capsys.readouterr().out


@pytest.mark.parametrize("side", [8, 66])
def test_the_time_counts_the_models_own_answers(side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = (rng.integers(0, 100, (60, 1, side, side)) + 120 * y[:, None, None, None]).astype(np.uint8)
    np.savez(tmp_path / "d.npz", x_train=x[20:], y_train=y[20:], x_test=x[:20], y_test=y[:20])
    (tmp_path / "slow.py").write_text(
        "import time, torch\n"
        "class Slow(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.register_buffer('level', torch.zeros(1))\n"
        "    def forward(self, x):\n"
        "        time.sleep(0.004 * len(x))\n"
        "        mean = x.mean((1, 2, 3))\n"
        "        return torch.stack([self.level - mean, mean - self.level], 1) * 20\n"
        "def build():\n"
        "    return Slow()\n"
    )
    monkeypatch.chdir(tmp_path)
    torch.save({"level": torch.tensor([0.4])}, tmp_path / "m.pt")
    given = options(dataset=f"npz:{tmp_path / 'd.npz'}", victims=[f"file:{tmp_path / 'm.pt'}"], control=False,
                    external={"factory": "slow:build"}, trust_code=True, attacks=["knockoff"], budgets=[5, 10],
                    jobs=1, seeds=2)  # fmt: skip
    estimated = estimate(prepare(make_config(given))).seconds
    # large images are remembered: 2 seeds of 10 queries, the test images and the probe; else those of every cell
    asked = 2 * 2 * 10 + 20 + 36 if side == 66 else 2 * 2 * (5 + 10) + 8 * 2 * 20
    assert 0.9 < estimated / (0.004 * asked) < 8


def test_what_takes_long_is_timed_on_two_images_and_what_is_fast_on_many(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def timed(each: float, most: int = 1000) -> tuple[float, list[int]]:
        calls: list[int] = []

        def work(count: int) -> None:
            nonlocal now
            calls.append(count)
            now += each * count

        return _seconds_an_image(work, most), calls

    monkeypatch.setattr("art_divqat.audit.estimate.time.perf_counter", lambda: now)
    for each, last in ((10.0, 2), (0.09, 5), (0.001, 256)):
        image, calls = timed(each)
        assert image == pytest.approx(each)
        assert calls == ([2, 2] if last == 2 else [2, 2, last])
    assert timed(0.001, most=9)[1] == [2, 2, 9]
