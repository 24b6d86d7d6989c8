"""A run: what it measures, that it repeats to the last digit, that it can be stopped, and what it refuses."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.builders import without_times

from art_divqat.api import evaluate, prepare
from art_divqat.audit.progress import Silent
from art_divqat.errors import UserError
from art_divqat.plan.config import ResolvedConfig, make_config
from art_divqat.results.build import read_results
from art_divqat.results.journal import Journal
from art_divqat.results.probes import is_probe
from art_divqat.results.schema import Results


def tiny(**changes: Any) -> ResolvedConfig:
    values: dict[str, Any] = {
        "limit": 150,
        "victims": ["robust"],
        "budgets": [30, 60],
        "attacks": ["knockoff"],
        "answers": ["soft"],
        "seeds": 2,
        "victim_recipe": {"epochs": 2},
        "thief_recipe": {"epochs": 2},
        "evasion": {"images": 40, "steps": 3},
        "jobs": 1,
        "query_pool": "in-distribution",
        "model": "lenet5",
    }
    return prepare(make_config({**values, **changes}))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, store: Path) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("runs") / "first"
    return folder, evaluate(tiny(), folder, store=store)


def test_a_two_layer_victim_meets_its_own_attack_and_others_refuse_it(tmp_path: Path, store: Path) -> None:
    options = {"victims": ["standard"], "attacks": ["fee"], "budgets": [60], "seeds": 1, "evasion": {"images": 0}}
    (cell,) = evaluate(tiny(model="mlp2", **options), tmp_path / "mlp2", store=store).cells
    assert 0 < cell.queries <= 60
    assert 0 <= cell.details["fidelity"] <= 1
    with pytest.raises(UserError, match="works only on two-layer ReLU networks"):
        evaluate(tiny(**options), tmp_path / "other", store=store)


def test_every_cell_is_measured_with_the_names_of_the_design(run: tuple[Path, Results]) -> None:
    _, results = run
    assert len(results.cells) == results.planned == 8
    for cell in results.cells:
        assert cell.queries == cell.budget
        assert set(cell.metrics) == {
            "victim_accuracy",
            "defended_accuracy",
            "thief_accuracy",
            "agreement",
            "agreement_clean",
            "extraction_ratio",
            "victim_robust_accuracy",
            "thief_robust_accuracy",
            "transfer_robust_accuracy",
            "transfer_attack_success",
            "label_flip_rate",
            "l1_distortion",
            "kl_divergence",
            "latency_us",
        }
        assert cell.metrics["defended_accuracy"] == cell.metrics["victim_accuracy"]
        assert cell.metrics["label_flip_rate"] == cell.metrics["l1_distortion"] == 0


def test_robust_is_compared_with_standard(run: tuple[Path, Results]) -> None:
    _, results = run
    kinds = {comparison.kind for comparison in results.comparisons}
    assert kinds == {"ratio", "difference", "curve_difference", "query_fraction", "best_attacker"}
    for comparison in results.comparisons:
        if (comparison.kind, comparison.metric) == ("ratio", "agreement") and not is_probe(comparison.attack):
            cells = {
                (cell.victim, cell.seed): cell.metrics["agreement"]
                for cell in results.cells
                if cell.budget == comparison.budget
            }
            ours = np.mean([value for (victim, _), value in cells.items() if victim == comparison.victim])
            theirs = np.mean([value for (victim, _), value in cells.items() if victim == "standard"])
            assert comparison.value is not None
            assert comparison.value.mean == pytest.approx(ours / theirs)
            assert comparison.value.low <= comparison.value.mean <= comparison.value.high  # type: ignore[operator]


def test_the_run_folder_holds_everything(run: tuple[Path, Results]) -> None:
    folder, results = run
    assert {path.name for path in folder.iterdir()} - {".lock"} == {
        "config.yaml",
        "journal.jsonl",
        "results.json",
        "report.md",
        "report.html",
    }
    # how many seeds a comparison needs is planned anew, and not written down
    written = Results.model_validate_json((folder / "results.json").read_text())
    assert written.model_dump_json() == results.model_dump_json()
    assert read_results(folder) == results


def test_the_same_seed_gives_the_same_numbers_whatever_ran_before(
    run: tuple[Path, Results], tmp_path: Path, global_state_untouched: None
) -> None:
    """Another store, other global state and another thread count of the caller: the same to the last digit."""
    state = torch.random.get_rng_state(), np.random.get_state()
    threads = torch.get_num_threads()
    torch.manual_seed(99)
    np.random.seed(99)
    again = evaluate(tiny(), tmp_path / "again", store=tmp_path / "store")
    assert torch.get_num_threads() == threads
    torch.random.set_rng_state(state[0])
    np.random.set_state(state[1])
    assert without_times(again) == without_times(run[1])


def test_side_by_side_gives_the_same_numbers(run: tuple[Path, Results], store: Path, tmp_path: Path) -> None:
    parallel = evaluate(tiny(jobs=2), tmp_path / "parallel", store=store)
    assert without_times(parallel) == without_times(run[1])


class _StopAfter(Silent):
    def __init__(self, count: int) -> None:
        self.count = count

    def finished(self, description: str, weight: float) -> None:
        self.count -= 1
        if self.count == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 5, 7])
def test_interrupted_and_continued_is_the_same_run(
    run: tuple[Path, Results], store: Path, tmp_path: Path, after: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny(), tmp_path / "run", store=store, watcher=_StopAfter(after))
    assert not (tmp_path / "run" / "results.json").exists()
    journal = tmp_path / "run" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"torn')
    results = evaluate(tiny(), tmp_path / "run", store=store)
    assert without_times(results) == without_times(run[1])


def test_a_finished_run_is_read_back_not_repeated(run: tuple[Path, Results], store: Path) -> None:
    folder, results = run
    before = (folder / "journal.jsonl").read_bytes()
    assert evaluate(tiny(), folder, store=store) == results
    assert (folder / "journal.jsonl").read_bytes() == before


def test_a_stored_victim_that_is_damaged_is_trained_again(tmp_path: Path) -> None:
    config = tiny(victims=["standard"], seeds=1, budgets=[30], evasion={"images": 0})
    first = evaluate(config, tmp_path / "a", store=tmp_path / "store")
    (weights,) = (tmp_path / "store").glob("*/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    second = evaluate(config, tmp_path / "b", store=tmp_path / "store")
    assert without_times(first) == without_times(second)


def test_retrain_replaces_what_is_kept(tmp_path: Path) -> None:
    config = tiny(victims=["standard"], seeds=1, budgets=[30], evasion={"images": 0})
    evaluate(config, tmp_path / "a", store=tmp_path / "store")
    (weights,) = (tmp_path / "store").glob("*/weights.safetensors")
    stamp = weights.stat().st_mtime_ns
    evaluate(config, tmp_path / "b", store=tmp_path / "store")
    assert weights.stat().st_mtime_ns == stamp
    evaluate(config, tmp_path / "c", store=tmp_path / "store", retrain=True)
    assert weights.stat().st_mtime_ns > stamp


def test_the_journal_names_the_stored_victim_that_a_cell_used(tmp_path: Path) -> None:
    config = tiny(victims=["standard"], seeds=1, budgets=[30], evasion={"images": 0})
    store = tmp_path / "store"
    for name, retrain in (("a", False), ("b", False), ("c", True)):
        evaluate(config, tmp_path / name, store=store, retrain=retrain)
    lines = [Journal(tmp_path / name / "journal.jsonl").read()[1] for name in "abc"]
    (weights,) = store.glob("*/weights.safetensors")
    assert {line["victim_sha256"] for run in lines for line in run} == {
        hashlib.sha256(weights.read_bytes()).hexdigest()
    }


def test_valid_files_that_were_exchanged_change_no_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny(victims=["standard"], seeds=1, budgets=[30])
    first = evaluate(config, tmp_path / "a", store=tmp_path / "store")
    (weights,) = (tmp_path / "store").glob("*/weights.safetensors")
    examples, *_ = (tmp_path / "store").glob("*/evasion-[0-9a-f]*.safetensors")
    state = load_file(weights)
    name = next(key for key in state if key.endswith("weight"))
    state[name][1] *= -1
    save_file(state, weights)
    save_file({"x": torch.full_like(load_file(examples)["x"], 0.5)}, examples)
    second = evaluate(config, tmp_path / "b", store=tmp_path / "store")
    assert without_times(first) == without_times(second)
    assert [str(path) in caplog.text for path in (weights, examples)] == [True, True]
    assert len(list((tmp_path / "store").glob("*/set-aside/*/*"))) == 2


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path, store: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"holds something else \(thesis\.tex\)"):
        evaluate(tiny(), tmp_path, store=store)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_of_another_run_is_left_alone(run: tuple[Path, Results], store: Path) -> None:
    folder, _ = run
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match="holds a run of other settings \\(seeds"):
        evaluate(tiny(seeds=1), folder, store=store)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_changed_journal_is_reported(run: tuple[Path, Results], tmp_path: Path, store: Path) -> None:
    folder = tmp_path / "changed"
    folder.mkdir()
    lines = (run[0] / "journal.jsonl").read_text().splitlines(keepends=True)
    record = json.loads(lines[1])
    record["entry"]["metrics"]["agreement"] = 0.123
    lines[1] = json.dumps(record) + "\n"
    (folder / "journal.jsonl").write_text("".join(lines))
    with pytest.raises(UserError, match=r"Line 2 of .* is not what this program wrote"):
        evaluate(tiny(), folder, store=store)


def test_two_processes_on_one_folder(run: tuple[Path, Results], store: Path, tmp_path: Path) -> None:
    from art_divqat.audit.folder import RunFolder

    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with RunFolder(tmp_path / "held").locked():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(30)
    try:
        with pytest.raises(UserError, match="Another process is running"):
            evaluate(tiny(), tmp_path / "held", store=store)
    finally:
        leave.set()
        thread.join()


def test_budget_beyond_the_pool_writes_nothing(tmp_path: Path, store: Path) -> None:
    with pytest.raises(UserError, match="Budget 5000 is beyond the query pool"):
        evaluate(tiny(budgets=[30, 5000]), tmp_path / "run", store=store)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("attack", "needed"), [("jbda:nb_seeds=500", 500), ("knockoff:recovery=average,repeats=2", 500)]
)
def test_a_pool_that_an_attack_exhausts_is_refused_with_what_it_needs(
    attack: str, needed: int, tmp_path: Path, store: Path
) -> None:
    with pytest.raises(UserError, match=rf"which holds 434 images: attack '{attack}' needs {needed}; lower") as error:
        evaluate(tiny(attacks=["jbda", attack], budgets=[1000]), tmp_path / "run", store=store)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_budget_beyond_the_pool_is_spent_by_attacks_that_need_fewer_images(tmp_path: Path, store: Path) -> None:
    attacks = ["JBDA:nb_seeds=20,round_epochs=1", "knockoff:recovery=Average,repeats=8"]
    config = tiny(victims=["standard"], attacks=attacks, budgets=[1000], seeds=1, evasion={"images": 0})
    results = evaluate(config, tmp_path / "run", store=store)
    assert [cell.queries for cell in results.cells] == [1000, 1000]
    names = ["jbda:nb_seeds=20,round_epochs=1", "knockoff:recovery=average,repeats=8"]
    assert [cell.attack for cell in results.cells] == results.config["attacks"] == names


def test_budgets_are_nested_and_thieves_are_fresh(store: Path, tmp_path: Path) -> None:
    """A cell alone gives what it gives among others: nothing carries over from cell to cell."""
    many = evaluate(tiny(victims=["standard"], seeds=1), tmp_path / "many", store=store)
    one = evaluate(tiny(victims=["standard"], seeds=1, budgets=[60]), tmp_path / "one", store=store)
    last, only = copy.deepcopy(many.cells[-1]), copy.deepcopy(one.cells[0])
    for cell in (last, only):
        cell.seconds = 0
        cell.metrics.pop("latency_us")
    assert last == only


def test_unwritable_folder(tmp_path: Path, store: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        evaluate(tiny(), tmp_path / "file", store=store)


def test_journal_lines_hold_a_bit_for_every_test_image(run: tuple[Path, Results]) -> None:
    from art_divqat.results.samples import unpack

    folder, results = run
    _, lines = Journal(folder / "journal.jsonl").read()
    for line in lines:
        hits = unpack(line["samples"]["agrees"])
        assert len(hits) == results.data["dataset"]["test"]
        assert hits.mean() == pytest.approx(line["metrics"]["agreement"])
