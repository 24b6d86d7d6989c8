"""A run that adds seeds until the leading comparison is decided: when it stops, goes on, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from art_divqat import api
from art_divqat.audit import run as module
from art_divqat.errors import UserError
from art_divqat.plan.cells import Cell
from art_divqat.plan.config import ResolvedConfig, make_config, read_config
from art_divqat.plan.looks import looks
from art_divqat.results.build import read_results
from art_divqat.results.journal import CellRecord, cell_record
from art_divqat.results.samples import pack

DATA = {"dataset": {"train": 100, "test": 300}, "pool": {"images": 500, "labelled": False}, "evasion_images": 40}


def simulated(cell: Cell, gain: float) -> CellRecord:
    """A thief of the robust victim agrees on so much more of 300 images; seeds differ by .03."""
    rng = np.random.default_rng([cell.seed, 7])
    rate = 0.6 + 0.03 * rng.standard_normal() + (gain if cell.victim.name == "robust" else 0.0)
    hits = np.random.default_rng([cell.seed, cell.victim.name == "robust"]).random(300) < rate
    names = ("thief_correct", "agrees", "agrees_clean", "victim_correct")
    metrics = dict.fromkeys(("thief_accuracy", "agreement", "agreement_clean"), float(hits.mean()))
    return cell_record(
        cell,
        queries=cell.budget,
        metrics={**metrics, "victim_accuracy": 1.0, "extraction_ratio": float(hits.mean())},
        samples={name: pack(hits if name != "victim_correct" else np.ones(300, bool)) for name in names},
        seconds=1.0,
    )


@pytest.fixture
def gain(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Runs are simulated from here on, with thieves of the robust victim so much better."""

    def use(gain: float, fail_after: int | None = None) -> None:
        class Simulated:
            done = 0

            def __init__(self, *_: Any) -> None: ...

            def __enter__(self) -> Simulated:
                return self

            def __exit__(self, *_: Any) -> None: ...

            def expect(self, data: dict[str, Any]) -> None: ...

            def run(self, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
                for number, task in enumerate(tasks):
                    if isinstance(task, module.MeasureCell):
                        if fail_after is not None and Simulated.done >= fail_after:
                            raise KeyboardInterrupt
                        Simulated.done += 1
                        yield number, simulated(task.cell, gain)
                    else:
                        yield number, DATA if isinstance(task, module.CheckAndDescribe) else None

        monkeypatch.setattr(module, "Executor", Simulated)

    return use


def auto(**changes: Any) -> ResolvedConfig:
    values: dict[str, Any] = {"victims": ["robust"], "attacks": ["knockoff"], "budgets": [100], "answers": ["soft"]}
    values |= {"seeds": "auto", "evasion": {"images": 0}}
    return api.prepare(make_config({**values, **changes}))


def test_a_large_difference_is_decided_at_an_early_look(gain: Any, tmp_path: Path) -> None:
    gain(0.3)
    results = api.evaluate(auto(), tmp_path / "run")
    seeds = len(results.cells) // 2
    assert seeds in looks(20)[:2]
    report = (tmp_path / "run" / "report.md").read_text()
    assert f"stopped at {seeds} seeds, where it was" in report
    assert "a test at the 1 % level" in report
    # done is done
    again = api.evaluate(auto(), tmp_path / "run")
    assert again.cells == results.cells


def test_no_difference_goes_to_the_largest_number(gain: Any, tmp_path: Path) -> None:
    gain(0.0)
    results = api.evaluate(auto(max_seeds=6), tmp_path / "run")
    assert len(results.cells) == results.planned == 2 * 6
    assert "largest number, 6, where it was not" in (tmp_path / "run" / "report.md").read_text()
    assert results.config["max_seeds"] == 6
    assert "max_minutes" not in results.config


def test_no_seeds_are_added_that_would_end_too_late_and_the_same_command_goes_on(gain: Any, tmp_path: Path) -> None:
    gain(0.0)
    folder = tmp_path / "run"
    first = api.evaluate(auto(max_seeds=8, max_minutes=1e-9), folder)
    assert len(first.cells) == first.planned == 2 * 3
    assert "stopped undecided at 3 seeds" in (folder / "report.md").read_text()
    assert read_results(folder) == first
    second = api.evaluate(auto(max_seeds=8, max_minutes=1e-9), folder)
    assert len(second.cells) == 2 * 5
    assert len(api.evaluate(auto(max_seeds=8), folder).cells) == 2 * 8


def test_an_interrupted_run_ends_like_another(gain: Any, tmp_path: Path) -> None:
    gain(0.0)
    whole = api.evaluate(auto(max_seeds=6), tmp_path / "whole")
    folder = tmp_path / "cut"
    gain(0.0, fail_after=7)
    with pytest.raises(KeyboardInterrupt):
        api.evaluate(auto(max_seeds=6), folder)
    so_far = read_results(folder)
    assert (len(so_far.cells), so_far.planned) == (7, 2 * 5)
    gain(0.0)
    continued = api.evaluate(auto(max_seeds=6), folder)
    assert continued.comparisons == whole.comparisons
    assert continued.cells == whole.cells


def test_the_written_configuration_repeats_it_and_the_cells_are_those_of_a_number(gain: Any, tmp_path: Path) -> None:
    gain(0.0)
    first = api.evaluate(auto(max_seeds=5), tmp_path / "a")
    written = api.prepare(make_config(read_config(tmp_path / "a" / "config.yaml")))
    assert (written.seeds, written.max_seeds) == ("auto", 5)
    assert api.evaluate(written, tmp_path / "b").cells == first.cells
    given = auto(seeds=5)
    assert not {"max_seeds", "max_minutes"} & {*given.for_results(), *json.loads(json.dumps(given.for_results()))}
    fixed = api.evaluate(given, tmp_path / "c")
    assert fixed.cells == first.cells
    assert "added seeds" not in (tmp_path / "c" / "report.md").read_text()
    assert "max_" not in (tmp_path / "c" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"victims": ["standard"]}, "auto adds seeds until a comparison is decided, and here is none"),
        ({"baseline": False}, "here is none"),
        ({"seeds": 4, "max_seeds": 9}, "max_seeds: expected with seeds: auto alone, got seeds 4"),
        ({"seeds": "many"}, "expected a whole number from 1 to 1000, or auto, got 'many'"),
        ({"seeds": 1001}, "got 1001"),
        ({"max_seeds": 2}, "max_seeds"),
        ({"max_minutes": 0}, "max_minutes"),
    ],
)
def test_what_cannot_be_used_is_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        auto(**options)
    assert "\n" not in str(error.value)


def test_a_defence_beside_none_is_a_comparison_too() -> None:
    assert auto(victims=["standard"], defences=["none", "heuristic"]).seeds == "auto"


@pytest.mark.parametrize("most", [3, 4, 5, 20, 21, 1000])
def test_looks_ascend_to_the_largest_number(most: int) -> None:
    found = looks(most)
    assert list(found) == sorted({*found})
    assert (found[0], found[-1]) == (3, most)
