"""What flags are computed from is really recorded by cells: small evaluations that must raise a flag, and must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier

from art_divqat import audit_model
from art_divqat.api import evaluate, prepare
from art_divqat.data import load_dataset
from art_divqat.defences.postprocessor import HeuristicPerturbation, Softmax
from art_divqat.models import build_model
from art_divqat.plan.config import make_config
from art_divqat.results.flags import DIAGNOSTICS
from art_divqat.results.schema import Results

pytestmark = pytest.mark.slow
# of the attacked network's gradients and of more attacks: recorded where robustness is looked into
ELSEWHERE = {"own_defences", "zero_gradients", "robust_accuracy_more_steps", "robust_accuracy_large_epsilon"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def run(folder: Path, store: Path, **changes: Any) -> Results:
    values: dict[str, Any] = {
        "limit": 300,
        "victims": ["standard"],
        "model": "lenet5",
        "budgets": [100],
        "answers": ["soft"],
        "seeds": 1,
        "query_pool": "in-distribution",
        "victim_recipe": {"epochs": 8, "learning_rate": 3e-3},
        "thief_recipe": {"epochs": 60, "learning_rate": 3e-3, "batch_size": 16},
        "evasion": {"images": 10, "steps": 2},
        "jobs": 1,
    }
    return evaluate(prepare(make_config({**values, **changes})), folder, store=store)


def raised(results: Results) -> set[str]:
    return {flag.name for flag in results.flags}


def test_a_thief_trained_for_one_epoch_is_undertrained_and_one_trained_long_is_not(store: Path, tmp_path: Path) -> None:
    short = run(tmp_path / "short", store, thief_recipe={"epochs": 1})
    assert "thief-undertrained" in raised(short)
    assert short.cells[0].details["linear_probe_accuracy"] > 0.5
    long = run(tmp_path / "long", store)
    assert "thief-undertrained" not in raised(long)
    assert long.cells[0].details["linear_probe_accuracy"] == short.cells[0].details["linear_probe_accuracy"]


def test_a_defended_run_records_every_detail_and_knows_who_undid_the_defence(store: Path, tmp_path: Path) -> None:
    defended = {"defences": ["heuristic:beta=0.9"], "thief_recipe": {"epochs": 2}}
    naive = run(tmp_path / "naive", store, **defended, attacks=["knockoff", "knockoff:recovery=labels"])
    assert "no-adaptive-attacker" in raised(naive)
    for cell in naive.cells:
        assert set(DIAGNOSTICS) - ELSEWHERE <= set(cell.details)
        assert cell.details["adaptive_attacker"] == 0.0
    adaptive = run(tmp_path / "adaptive", store, **defended, attacks=["knockoff", "knockoff:recovery=invert"])
    assert "no-adaptive-attacker" not in raised(adaptive)
    assert [cell.details["adaptive_attacker"] for cell in adaptive.cells] == [0.0, 1.0]
    assert "evasion-does-not-see-defence" in raised(adaptive)


def test_repeats_are_paid_and_their_remainder_is_no_suspicion(store: Path, tmp_path: Path) -> None:
    noisy = {"defences": ["gaussian-noise:scale=0.05"], "thief_recipe": {"epochs": 2}, "budgets": [103]}
    results = run(tmp_path / "run", store, **noisy, attacks=["knockoff:recovery=average,repeats=4"])
    assert results.cells[0].details["queries_per_image"] == 4
    assert results.cells[0].queries == 100
    assert "budget-not-exhausted" not in raised(results)
    assert "victim-nondeterministic" in raised(results)


def test_a_pool_that_holds_the_training_images_is_noticed(store: Path, tmp_path: Path) -> None:
    data = load_dataset("digits", limit=300)
    arrays = {"x_train": data.x_pool, "y_train": data.y_pool, "x_test": data.x_test, "y_test": data.y_test}
    clean, dirty = tmp_path / "clean.npz", tmp_path / "dirty.npz"
    np.savez(clean, **arrays)
    np.savez(dirty, **{**arrays, "x_train": np.concatenate([data.x_pool, data.x_train[:50]]),
                       "y_train": np.concatenate([data.y_pool, data.y_train[:50]])})  # fmt: skip
    found = {}
    for path in (clean, dirty):
        results = run(tmp_path / path.stem, store, query_pool=f"npz:{path}", thief_recipe={"epochs": 1})
        found[path.stem] = results.cells[0].details["pool_overlap"]
        assert ("pool-overlaps-training-data" in raised(results)) == (path == dirty)
    assert found["clean"] == 0.0
    assert found["dirty"] == pytest.approx(50 / (len(data.x_pool) + 50))


AUDIT: dict[str, Any] = {
    "budgets": (50,), "seeds": 1, "answers": ("soft",), "limit": 300, "query_pool": "in-distribution",
    "thief_model": "lenet5", "thief_recipe": {"epochs": 1}, "evasion": {"images": 0},
}  # fmt: skip


def trained(network: torch.nn.Module) -> torch.nn.Module:
    data = load_dataset("digits", limit=300)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    torch.manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            network(torch.from_numpy(data.x_train)), torch.from_numpy(data.y_train)
        )
        loss.backward()
        optimizer.step()
    return network


def test_a_model_that_answers_at_random_is_noticed(tmp_path: Path) -> None:
    class Careless(torch.nn.Module):
        """Dropout that nobody turns off."""

        def __init__(self) -> None:
            super().__init__()
            self.network = build_model("lenet5", (1, 8, 8), 10, seed=0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(torch.nn.functional.dropout(x, 0.2, training=True))

    network = trained(Careless())
    results = audit_model(network, "digits", output=tmp_path / "run", store=tmp_path / "store", **AUDIT)
    assert "victim-nondeterministic" in raised(results)
    assert "victim-in-train-mode" not in raised(results), "the module itself is in eval mode"


@pytest.mark.parametrize("mode", ["eval", "train", "a part in train mode"])
def test_a_classifier_that_serves_in_train_mode_is_noticed(tmp_path: Path, mode: str) -> None:
    class Served(PyTorchClassifier):  # type: ignore[misc]
        """What somebody puts behind an endpoint who forgot `eval()`, or wants dropout to estimate uncertainty."""

        def predict(self, x: Any, batch_size: int = 128, training_mode: bool = False, **kwargs: Any) -> Any:
            if mode != "a part in train mode":
                return super().predict(x, batch_size, training_mode=mode == "train", **kwargs)
            self.model.eval()
            self.model[0].train()
            with torch.no_grad():
                return self.model(torch.from_numpy(x)).numpy()

    network = trained(torch.nn.Sequential(torch.nn.Dropout(0.2), build_model("lenet5", (1, 8, 8), 10, seed=0)))
    classifier = Served(
        network, torch.nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu"
    )  # fmt: skip
    results = audit_model(classifier, "digits", output=tmp_path / "run", store=tmp_path / "store", **AUDIT)
    told = {"victim-in-train-mode", "victim-nondeterministic"}
    assert told & raised(results) == (set() if mode == "eval" else told)


@pytest.mark.parametrize("defended", [False, True])
def test_the_postprocessors_of_an_audited_classifier_are_not_seen_by_gradients(tmp_path: Path, defended: bool) -> None:
    network = trained(build_model("lenet5", (1, 8, 8), 10, seed=0))
    served = [Softmax(), HeuristicPerturbation(beta=0.9)] if defended else []
    classifier = PyTorchClassifier(
        network, torch.nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu",
        postprocessing_defences=served,
    )  # fmt: skip
    options = {**AUDIT, "evasion": {"images": 10, "steps": 2}}
    results = audit_model(classifier, "digits", output=tmp_path / "run", store=tmp_path / "store", **options)
    assert results.cells[0].details["own_defences"] == len(served)
    assert ("evasion-does-not-see-defence" in raised(results)) == defended
