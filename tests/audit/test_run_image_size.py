"""Thieves that see smaller images than the victim: queries stay whole, and plan, record and report say it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from art_divqat.api import evaluate, prepare
from art_divqat.attacks.extraction.registry import list_attacks, parse_attack, read_attack
from art_divqat.audit.bench import Bench
from art_divqat.audit.costs import Costs
from art_divqat.audit.estimate import estimate
from art_divqat.audit.probe import LinearProbe
from art_divqat.cli.dry_run import show_plan
from art_divqat.errors import UserError
from art_divqat.models import build_model
from art_divqat.models.shrunk import Shrunk
from art_divqat.plan.cells import plan_cells
from art_divqat.plan.config import ResolvedConfig, make_config
from art_divqat.report import render
from art_divqat.results.journal import Journal

TINY: dict[str, Any] = {
    "budgets": [30],
    "answers": ["soft"],
    "query_pool": "in-distribution",
    "seeds": 1,
    "jobs": 1,
    "device": "cpu",
    "model": "small-cnn",
    "victim_recipe": {"epochs": 1},
    "thief_recipe": {"epochs": 1},
    "evasion": {"images": 0},
}


def pictures(path: Path, shape: tuple[int, ...], classes: int = 3, count: int = 150) -> str:
    rng = np.random.default_rng(0)
    y = np.arange(count) % classes
    x = (rng.integers(0, 80, (count, *shape)) + 60 * y[:, None, None, None]).astype(np.uint8)
    np.savez(path, x_train=x[20:], y_train=y[20:], x_test=x[:20], y_test=y[:20])
    return f"npz:{path}"


def config(tmp_path: Path, shape: tuple[int, ...] = (3, 32, 32), **options: Any) -> ResolvedConfig:
    data = pictures(tmp_path / f"{'x'.join(map(str, shape))}.npz", shape)
    return prepare(make_config({**TINY, "dataset": data, **options}))


@pytest.mark.parametrize("attack", sorted(set(list_attacks()) - {"dfme", "maze", "fee"}))
def test_every_attack_that_trains_on_a_pool_takes_it(attack: str, tmp_path: Path) -> None:
    own = {"attacker_images": 8} if "own" in attack or "semi" in attack else {}
    more = ",nb_seeds=10" if attack == "jbda" else ""
    asked = config(
        tmp_path,
        (1, 16, 16),
        model="lenet5",
        attacks=[f"{attack}:image_size=8{more}"],
        baseline=False,
        budgets=[16],
        **own,
    )
    results = evaluate(asked, tmp_path / "run", store=tmp_path / "store")
    (cell,) = results.cells
    assert "image_size=8" in cell.attack
    assert cell.queries == (0 if attack == "own-images" else 16)


@pytest.mark.parametrize("attack", ["dfme", "maze", "fee"])
def test_attacks_without_a_pool_refuse_it(attack: str) -> None:
    with pytest.raises(UserError, match="has no parameter 'image_size'"):
        parse_attack(f"{attack}:image_size=16")


@pytest.mark.parametrize("value", [0, -3, "96x96", 1.5, True])
def test_only_a_side_in_pixels_is_taken(value: Any) -> None:
    with pytest.raises(UserError, match="image_size"):
        parse_attack(f"knockoff:image_size={value}")


def test_its_name_keeps_it_with_and_without_a_recovery() -> None:
    attack = parse_attack("knockoff:recovery=average,repeats=2,image_size=96")
    assert (attack.image_size, attack.without_recovery.image_size) == (96, 96)
    assert str(attack.without_recovery) == "knockoff:image_size=96"
    assert read_attack(str(attack)).image_size == 96
    assert parse_attack("knockoff").image_size is None


@pytest.mark.parametrize(("shape", "side", "seen"), [((3, 32, 32), 16, (16, 16)), ((1, 24, 36), 12, (12, 18))])
def test_the_victim_is_asked_about_whole_images_and_the_thief_sees_small_ones(
    shape: tuple[int, ...], side: int, seen: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward: list[tuple[int, ...]] = []
    original = Shrunk.forward

    def spy(self: Shrunk, x: torch.Tensor) -> torch.Tensor:
        forward.append(tuple(x.shape[1:]))
        self.network.register_forward_pre_hook(lambda _, given: forward.append(tuple(given[0].shape[1:])))
        return original(self, x)

    monkeypatch.setattr(Shrunk, "forward", spy)
    asked = config(tmp_path, shape, attacks=["knockoff", f"knockoff:image_size={side}"])
    results = evaluate(asked, tmp_path / "run", store=tmp_path / "store")
    assert set(forward) == {shape, (shape[0], *seen)}
    assert [cell.queries for cell in results.cells] == [30, 30]
    header, lines = Journal(tmp_path / "run" / "journal.jsonl").read()
    name = f"knockoff:image_size={side}"
    assert header["data"]["thief_images"] == {name: list(seen)}
    assert {line["cell"]["attack"] for line in lines} == {"knockoff", name}
    text = f"the thief of {name} sees {seen[0]}×{seen[1]}"
    assert text in render(results, "md")


def test_the_plan_says_it_and_counts_fewer_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = config(tmp_path, attacks=["knockoff", "knockoff:image_size=16"])
    show_plan(asked, json_output=False)
    lines = capsys.readouterr().out.splitlines()
    (number,) = (number for number, line in enumerate(lines) if line.startswith("thief "))
    assert lines[number + 1] == "          the thief of knockoff:image_size=16 sees 16×16"
    assert estimate(asked).thief_images == {"knockoff:image_size=16": [16, 16]}
    data = {"dataset": {"train": 70, "input_shape": [3, 32, 32]}, "evasion_images": 0,
            "thief_images": {"knockoff:image_size=16": [16, 16]}}  # fmt: skip
    whole, small = (Costs(asked, data).of_cell(cell) for cell in plan_cells(asked))
    assert small == whole / 4


def test_a_size_that_cannot_be_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for side, message in ((33, "at most 32"), (3, "at least 4×4 pixels")):
        asked = config(tmp_path, attacks=[f"knockoff:image_size={side}"])
        for refused in (lambda asked=asked: estimate(asked), lambda asked=asked: evaluate(asked, tmp_path / "run")):
            with pytest.raises(UserError, match=message):
                refused()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("training", ["probe", "fine-tune"])
def test_public_thieves_see_small_images_through_the_public_network(training: str, tmp_path: Path) -> None:
    public = tmp_path / "public.safetensors"
    save_file(build_model("small-cnn", (3, 16, 16), 21, seed=7).state_dict(), public)
    asked = config(
        tmp_path,
        attacks=["knockoff:image_size=16"],
        thief_model="small-cnn",
        thief_weights=str(public),
        thief_training=training,
    )
    bench = Bench(asked, tmp_path / "store")
    thief = bench.fresh_thief(0, image_size=16)
    x = bench.dataset.x_test[:6]
    averaged = x.reshape(6, 3, 16, 2, 16, 2).mean(axis=(3, 5))
    enlarged = averaged.repeat(2, axis=2).repeat(2, axis=3)
    thief.fit(x, np.arange(6) % 3, nb_epochs=1)
    assert thief.predict(x).shape == (6, 3)
    # 2×2 blocks of one colour are other images of which a thief of half the size sees nearly the same
    assert np.abs(thief.predict(x) - thief.predict(enlarged)).max() < np.abs(thief.predict(x)).max()
    results = evaluate(asked, tmp_path / "run", store=tmp_path / "store")
    assert results.cells[0].queries == 30


def test_the_linear_probe_beside_a_thief_sees_no_more_than_it(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((50, 1, 16, 16), np.float32)
    y = np.eye(2, dtype=np.float32)[np.arange(50) % 2]
    probe = LinearProbe(x, y, size=(4, 4))
    assert probe.features == 16
    assert LinearProbe(x, y).features == 256
    thief = Bench(config(tmp_path, attacks=["knockoff"]), tmp_path).fresh_thief(0, image_size=8)
    thief.fit(np.zeros((4, 3, 32, 32), np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]])
    assert thief.probe.features == 3 * 64  # type: ignore[attr-defined]
