"""Preflight: a run and a plan refuse the same things, before anything is trained or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from art_divqat.api import evaluate, prepare
from art_divqat.audit import preflight
from art_divqat.audit.bench import Bench
from art_divqat.audit.estimate import estimate
from art_divqat.errors import UserError
from art_divqat.plan.config import make_config
from art_divqat.plan.spelling import in_python

OPTIONS: dict[str, Any] = {"limit": 150, "budgets": [30], "seeds": 1, "query_pool": "in-distribution", "jobs": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"defences": ["mad:model=vgg16"]}, "at least 32×32 pixels, these are 8×8"),
        ({"budgets": [30, 5000]}, "Budget 5000 is beyond the query pool"),
        ({"attacks": ["dfme"]}, "One step of attack 'dfme' asks 896 queries"),
        (
            {"attacks": ["knockoff", "knockoff:recovery=average,repeats=2"], "repeat_queries": "free"},
            "repeats=2' asks every image 2 times, and learns nothing by it",
        ),
        ({"attacks": ["knockoff-adaptive"], "query_pool": "noise"}, "needs a query pool with labels"),
        ({"dataset": "npz:three.npz", "evasion": {"images": 9, "autoattack": True}}, "leave evasion.autoattack out"),
    ],
)
def test_run_and_plan_refuse_the_same(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    y = np.arange(120) % 3
    x = np.broadcast_to((y / 4)[:, None, None, None], (120, 1, 8, 8)).astype(np.float32)
    np.savez("three.npz", x_train=x, y_train=y, x_test=x[:30], y_test=y[:30])
    config = prepare(make_config({**OPTIONS, **options}))
    with pytest.raises(UserError, match=message) as of_plan:
        estimate(config)
    with pytest.raises(UserError, match=message) as of_run:
        evaluate(config, tmp_path / "run", store=tmp_path / "store")
    # a caller of Python reads Python's arguments
    assert in_python(str(of_plan.value), audited=False) == str(of_run.value)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "store").exists()


def test_a_plan_and_a_run_read_the_model(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"damaged")
    config = prepare(make_config({**OPTIONS, "victims": [f"file:{tmp_path / 'm.safetensors'}"], "model": "lenet5"}))
    with pytest.raises(UserError, match="cannot be read as a state dict"):
        estimate(config)
    with pytest.raises(UserError, match="cannot be read as a state dict"):
        preflight.preflight(Bench(config, tmp_path / "store"))


@pytest.mark.parametrize(("test", "expected"), [(slice(0, 30), 1.0), (slice(100, 130), 2 / 3), (slice(120, 150), 0.0)])
def test_test_images_among_the_training_images_are_found(tmp_path: Path, test: slice, expected: float) -> None:
    x = np.random.default_rng(0).random((150, 1, 8, 8))
    y = np.arange(150) % 3
    # the same pixels, once divided in single precision
    np.savez(tmp_path / "a.npz", x_train=(x[:120] * 255).astype(np.uint8), y_train=y[:120],
             x_test=(x[test] * 255).astype(np.uint8) / 255, y_test=y[test])  # fmt: skip
    options = {**OPTIONS, "dataset": f"npz:{tmp_path / 'a.npz'}", "limit": None, "budgets": [20]}
    data = preflight.preflight(Bench(prepare(make_config(options)), tmp_path / "store"))
    assert data["dataset"]["test_overlap"] == pytest.approx(expected)


def test_a_pool_of_twins_is_empty_and_says_why(tmp_path: Path) -> None:
    x = np.repeat(np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32), 40, axis=0)
    y = np.repeat(np.arange(3), 40)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    config = prepare(make_config({**OPTIONS, "dataset": f"npz:{tmp_path / 'a.npz'}"}))
    with pytest.raises(UserError, match=r"in-distribution is empty: every image .* has a copy among the training"):
        estimate(config)


def test_a_plan_says_what_was_done_to_the_images(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((150, 1, 8, 8))
    x[0, 0, 0, 0] = 1.0000001
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(150) % 3)
    name = f"npz:{tmp_path / 'a.npz'}"
    found = estimate(prepare(make_config({**OPTIONS, "dataset": name, "query_pool": name, "budgets": [10]})))
    assert len(found.data_notes) == 2
    assert estimate(prepare(make_config({**OPTIONS, "query_pool": name}))).data_notes == tuple(
        f"queries: {note}" for note in found.data_notes
    )
    assert estimate(prepare(make_config(OPTIONS))).data_notes == ()
