"""Workers side by side share what a model answers and what a public network makes of large images, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from art_divqat.api import evaluate, prepare
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.estimators.public import Features, public_features
from art_divqat.models import build_model
from art_divqat.plan.config import ResolvedConfig, make_config
from art_divqat.results.journal import Journal
from art_divqat.victims.external.adapter import ExternalClassifier

SHAPE = (1, 66, 66)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> ResolvedConfig:
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    y = np.arange(160) % 2
    x = (rng.integers(0, 100, (160, *SHAPE)) + 120 * y[:, None, None, None]).astype(np.uint8)
    np.savez(folder / "d.npz", x_train=x[40:], y_train=y[40:], x_test=x[:40], y_test=y[:40])
    network = build_model("lenet5", SHAPE, 2, seed=0)
    victim = RecipeClassifier(network, SHAPE, 2, TrainingRecipe(epochs=12, batch_size=16))
    victim.fit(x[40:] / np.float32(255), y[40:])
    save_file(network.state_dict(), folder / "victim.safetensors")
    save_file(build_model("lenet5", (3, *SHAPE[1:]), 9, seed=7).state_dict(), folder / "public.safetensors")
    values = {
        "dataset": f"npz:{folder / 'd.npz'}",
        "victims": [f"file:{folder / 'victim.safetensors'}"],
        "external": {"architecture": "lenet5"},
        "control": False,
        "query_pool": "in-distribution",
        "attacks": ["knockoff", "random"],
        "budgets": [11, 30],
        "seeds": 1,
        "device": "cpu",
        "thief_model": "lenet5",
        "thief_weights": str(folder / "public.safetensors"),
        "evasion": {"images": 0},
    }
    return prepare(make_config(values))


def lines(folder: Path) -> list[Any]:
    _, found = Journal(folder / "journal.jsonl").read()
    unclocked: list[Any] = []
    for line in found:
        metrics = {name: value for name, value in line["metrics"].items() if name != "latency_us"}
        unclocked.append({**line, "seconds": 0, "metrics": metrics})
    return sorted(unclocked, key=lambda line: str(line["cell"]))


def run(asked: ResolvedConfig, folder: Path, cache: Path, jobs: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    public_features.cache_clear()
    evaluate(asked.model_copy(update={"jobs": jobs}), folder, store=folder / "store")
    return lines(folder)


def test_two_workers_give_what_one_gives_and_the_next_run_passes_no_image_again(
    asked: ResolvedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[int] = []
    computed, answer = Features.computed, ExternalClassifier.asked

    def counted(self: Features, images: Any) -> Any:
        passed.append(len(images))
        return computed(self, images)

    def counted_answer(self: ExternalClassifier, x: Any) -> Any:
        if self.memory is not None:
            passed.append(len(x))
        return answer(self, x)

    monkeypatch.setattr(Features, "computed", counted)
    monkeypatch.setattr(ExternalClassifier, "asked", counted_answer)
    one = run(asked, tmp_path / "one", tmp_path / "cache1", 1, monkeypatch)
    # at most 40 test images and 60 of the pool, in batches of 32, by the victim and the public network
    assert 2 * 64 <= sum(passed) <= 2 * (64 + 3 * 32)
    passed.clear()
    assert run(asked, tmp_path / "two", tmp_path / "cache2", 2, monkeypatch) == one
    assert len(one) == 8
    assert len(list((tmp_path / "cache2").rglob("features/*.sqlite"))) == 1
    assert run(asked, tmp_path / "three", tmp_path / "cache2", 1, monkeypatch) == one
    assert passed == []
