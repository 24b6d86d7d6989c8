"""The positive control of an audit: in the plan, trained once for all audits of the same data, and ranked nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from art_divqat import audit_model
from art_divqat.audit import preflight as preflight_module
from art_divqat.audit.bench import Bench
from art_divqat.audit.costs import Costs
from art_divqat.audit.preflight import preflight
from art_divqat.errors import UserError
from art_divqat.plan.cells import plan_cells
from art_divqat.plan.config import ResolvedConfig, make_config
from art_divqat.plan.presets import resolve
from art_divqat.victims import provider as rooms

TINY: dict[str, Any] = {
    "budgets": [30, 60],
    "seeds": 2,
    "answers": ["soft"],
    "attacks": ["knockoff"],
    "query_pool": "in-distribution",
    "thief_model": "lenet5",
    "thief_recipe": {"epochs": 1},
    "evasion": {"images": 10, "steps": 1},
}


@pytest.fixture
def model_file(tmp_path: Path) -> str:
    (tmp_path / "m.onnx").write_bytes(b"a model")
    return f"file:{tmp_path / 'm.onnx'}"


def resolved(model: str, **options: Any) -> ResolvedConfig:
    return resolve(make_config({"victims": [model], "device": "cpu", **options}))


def on_control(config: ResolvedConfig) -> list[tuple[str, str, str, int, int]]:
    cells = [cell for cell in plan_cells(config) if str(cell.victim) == "standard"]
    return [(str(c.attack), str(c.defence), c.answers, c.budget, c.seed) for c in cells]


def test_it_is_one_seed_of_every_attack_that_asks_undefended_at_the_largest_budget(model_file: str) -> None:
    config = resolved(
        model_file,
        attacks=("knockoff", "knockoff:recovery=invert", "scout", "fee"),
        defences=("heuristic:beta=0.9", "none"),
        budgets=(10, 500),
        seeds=3,
        attacker_images=5,
    )
    assert config.control is True
    assert on_control(config) == [
        (attack, "none", answers, 500, 0)
        # what only undoes a defence is itself without one; own-images asks nothing; fee is for other networks
        for attack in ("knockoff", "scout")
        for answers in ("soft", "hard")
    ]
    assert len({cell.id for cell in plan_cells(config)}) == len(plan_cells(config))
    several = resolved(model_file, seeds="auto", defences=("none", "labels"), max_seeds=8)
    assert {seed for *_, seed in on_control(several)} == {0}


def test_who_has_a_control(model_file: str) -> None:
    assert resolved(model_file, control=False).control is False
    assert on_control(resolved(model_file, control=False)) == []
    beside = resolve(make_config({"victims": [model_file, "standard"]}))
    # asked for by name it is a victim like any other
    assert beside.control is False
    assert len(on_control(beside)) == len(plan_cells(beside)) / 2
    alone = resolve(make_config({"victims": ["robust"]}))
    assert "control" not in alone.for_results()
    with pytest.raises(UserError, match="Option control: a control stands beside a model of one's own"):
        resolve(make_config({"victims": ["robust"], "control": True}))


@pytest.mark.parametrize("control", [None, True, False])
def test_a_configuration_written_down_plans_the_same(model_file: str, control: bool | None) -> None:
    config = resolved(model_file, control=control, thief_model="lenet5", dataset="npz:a.npz")
    again = resolve(make_config(config.model_dump(mode="json")))
    assert again == config
    assert [cell.id for cell in plan_cells(again)] == [cell.id for cell in plan_cells(config)]
    assert config.for_results()["control"] is (control is not False)


def test_what_it_is_trained_as(model_file: str) -> None:
    own = resolved(model_file, dataset="npz:a.npz", thief_model="lenet5")
    # on a few hundred images the recipe of large sets takes a handful of steps
    assert own.victim_recipe == own.thief_recipe
    assert own.model == own.thief_model == "lenet5"
    assert resolved(model_file, dataset="cifar10").victim_recipe.epochs == 5
    assert resolved(model_file, dataset="npz:a.npz", victim_recipe={"epochs": 2}).victim_recipe.epochs == 2
    assert resolved(model_file, dataset="npz:a.npz", control=False).victim_recipe.epochs == 5


def test_its_cost_is_in_the_estimate(model_file: str) -> None:
    data = {"dataset": {"train": 1000}, "evasion_images": 200}
    config = resolved(model_file, dataset="npz:a.npz")
    costs = Costs(config, data)
    (control,) = {cell.victim for cell in plan_cells(config) if str(cell.victim) == "standard"}
    # no robustness is measured of it
    assert costs.of_victim((control, 0)) == 1000 * config.victim_recipe.epochs
    cells = [cell for cell in plan_cells(config) if cell.victim == control]
    assert {costs.of_cell(cell) for cell in cells} == {1000.0 * config.thief_recipe.epochs}


def test_data_that_no_control_can_be_trained_on_is_refused(
    model_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(resolved(model_file, limit=100), tmp_path)
    monkeypatch.setattr(preflight_module, "model_kind", lambda config: "endpoint")
    assert preflight(bench)["model"] == {"kind": "endpoint"}
    bench.dataset.y_train[:] = 3
    with pytest.raises(
        UserError, match=r"^No control can be trained on 'digits': .* one class\. Leave it out with --no-"
    ):
        preflight(bench)
    assert preflight(Bench(resolved(model_file, limit=100, control=False), tmp_path))


def test_audits_of_two_models_train_one_control_and_rank_it_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    train = rooms.train_victim
    monkeypatch.setattr(rooms, "train_victim", lambda spec, context: trained.append(str(spec)) or train(spec, context))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    digits = load_digits()
    x, y = (digits.images / 16).astype("float32"), digits.target
    arrays = {"x_train": x[:600], "y_train": y[:600], "x_test": x[600:700], "y_test": y[600:700]}
    for number, columns in enumerate((64, 32)):
        model = LogisticRegression(max_iter=50).fit(x[900:].reshape(-1, 64) * (np.arange(64) < columns), y[900:])
        results = audit_model(model, arrays, output=tmp_path / str(number), store=tmp_path / "store", **TINY)
        cells = [cell for cell in results.cells if cell.victim == "standard"]
        assert [(cell.budget, cell.seed) for cell in cells] == [(60, 0)]
        assert not any("robust" in name for cell in cells for name in cell.metrics)
        assert not cells[0].curves
        assert results.planned == len(results.cells) == 5
        report = (tmp_path / str(number) / "report.md").read_text()
        assert "| control (standard, lenet5, trained here, undefended) |" in report
        assert "The whole audit used 180 queries" in report
    assert trained == ["standard"]
