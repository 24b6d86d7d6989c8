"""The plan that `--dry-run` prints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from art_divqat.api import prepare
from art_divqat.cli.dry_run import show_plan
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
