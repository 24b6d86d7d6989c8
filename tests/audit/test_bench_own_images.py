"""Runs whose attacker has images of their own: which images these are, that runs go on and repeat, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.builders import without_times

from art_divqat.api import evaluate, prepare
from art_divqat.audit.bench import Bench
from art_divqat.audit.preflight import preflight
from art_divqat.errors import UserError
from art_divqat.plan.config import ResolvedConfig, make_config
from art_divqat.results.build import read_results
from art_divqat.results.probes import is_probe, probed
from art_divqat.results.schema import Results


def tiny(**changes: Any) -> ResolvedConfig:
    values: dict[str, Any] = {
        "limit": 150,
        "victims": ["standard"],
        "defences": ["none", "labels"],
        "attacks": ["own-images:variants=40", "own-and-pool", "own-augmented", "jbda:seeds=own", "semi-supervised"],
        "budgets": [10, 60],
        "answers": ["soft", "hard"],
        "seeds": 1,
        "attacker_images": 20,
        "victim_recipe": {"epochs": 3},
        "thief_recipe": {"epochs": 1},
        "evasion": {"images": 0},
        "jobs": 1,
        "query_pool": "in-distribution",
        "model": "small-cnn",
        "thief_model": "lenet5",
    }
    return prepare(make_config({**values, **changes}))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, store: Path) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("runs") / "first"
    return folder, evaluate(tiny(), folder, store=store)


def test_every_attack_has_its_cells(run: tuple[Path, Results]) -> None:
    _, results = run
    assert len(results.cells) == results.planned == 2 * (1 + 4 * 2 * 2)
    for cell in results.cells:
        assert cell.queries == cell.budget
        assert (cell.budget == 0) == (cell.answers == "none") == cell.attack.startswith("own-images")
    alone = [cell for cell in results.cells if cell.budget == 0]
    # one thief, whatever the defence is
    assert alone[0].metrics["thief_accuracy"] == alone[1].metrics["thief_accuracy"]
    assert results.config["attacker_images"] == 20


def test_what_the_queries_added_is_compared(run: tuple[Path, Results]) -> None:
    added = [c for c in run[1].comparisons if c.kind == "queries_added" and not is_probe(c.attack)]
    assert len(added) == 2 * 2 * 4 * 2 * 2
    assert {probed(c.baseline or "") for c in added} == {"own-images:variants=40"}
    assert all(c.budget for c in run[1].comparisons if c.kind != "best_attacker")


def test_an_interrupted_run_goes_on_to_the_same_results(run: tuple[Path, Results], store: Path, tmp_path: Path) -> None:
    folder, whole = run
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_text("".join(lines[:6]))
    assert without_times(evaluate(tiny(), tmp_path, store=store)) == without_times(whole)
    assert without_times(read_results(tmp_path)) == without_times(whole)


def test_two_jobs_give_the_same_results(run: tuple[Path, Results], store: Path, tmp_path: Path) -> None:
    assert without_times(evaluate(tiny(jobs=2), tmp_path / "run", store=store)) == without_times(run[1])


def test_another_number_of_images_is_another_run(run: tuple[Path, Results], store: Path) -> None:
    with pytest.raises(UserError, match=r"other settings \(attacker_images 20 there, 21 asked\)"):
        evaluate(tiny(attacker_images=21), run[0], store=store)


def bench(**changes: Any) -> Bench:
    return Bench(tiny(**changes), Path("nowhere"))


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


@pytest.mark.parametrize("pool", ["in-distribution", "digits", "photos"])
def test_own_images_are_held_out_and_not_in_the_pool_too(pool: str) -> None:
    made = bench(query_pool=pool)
    has, dataset = made.attackers_images(seed=3), made.dataset
    own = rows(has["own_images"])
    assert len(has["own_images"]) == len(has["own_labels"]) == 20
    # digits has no two images alike
    for others in (dataset.x_train, dataset.x_validation, dataset.x_test, has["pool"]):
        assert not own & rows(others)
    assert own <= rows(dataset.x_pool)
    assert len(has["pool"]) == len(made.pool.x) - (0 if pool == "photos" else 20)
    if has["pool_labels"] is not None:
        assert len(has["pool_labels"]) == len(has["pool"])


@pytest.mark.parametrize("number", [1, 7, 10, 43])
def test_own_images_share_the_classes_and_fewer_are_among_more(number: int) -> None:
    few, more = (bench(attacker_images=n).attackers_images(seed=1) for n in (number, 80))
    counts = np.bincount(few["own_labels"], minlength=10)
    assert counts.sum() == number
    assert counts.max() <= -(-number // 10) + 1
    assert rows(few["own_images"]) <= rows(more["own_images"])
    assert rows(more["own_images"]) != rows(bench(attacker_images=80).attackers_images(seed=2)["own_images"])


def test_fewer_images_than_classes_and_no_labels(store: Path, tmp_path: Path) -> None:
    few = evaluate(tiny(attacker_images=3, budgets=[60], answers=["hard"]), tmp_path / "few", store=store)
    assert len(few.cells) == few.planned
    config = tiny(attacker_labels=False, attacks=["own-and-pool", "jbda:seeds=own"], budgets=[60])
    assert config.for_results()["attacker_labels"] is False
    unlabelled = evaluate(config, tmp_path / "unlabelled", store=store)
    assert not [c for c in unlabelled.comparisons if c.kind == "queries_added"]
    report = (tmp_path / "unlabelled" / "report.md").read_text()
    assert "20 images of the victim's own kind, without their true labels." in report


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacker_images": 5000}, r"cannot have 5000 images of their own: 'digits' holds \d+ .*--attacker-images"),
        ({"attacker_images": 400, "budgets": [100]}, "holds 3[0-9] images: attack 'own-and-pool' needs 100"),
    ],
)
def test_too_few_images(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        preflight(bench(**changes))
    assert "\n" not in str(error.value)


def test_without_own_images_nothing_is_added(store: Path, tmp_path: Path) -> None:
    plain = tiny(attacker_images=0, attacks=["knockoff"], defences=["none"], budgets=[60])
    results = evaluate(plain, tmp_path / "run", store=store)
    assert "attacker" not in (tmp_path / "run" / "journal.jsonl").read_text()
    assert "attacker_" not in (tmp_path / "run" / "config.yaml").read_text()
    assert "queries added" not in (tmp_path / "run" / "report.md").read_text()
    assert all(cell.budget for cell in results.cells)
