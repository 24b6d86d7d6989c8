"""The linear probe is an attacker where it does better than the thief, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.builders import read_cell

from art_divqat.results.build import summarise
from art_divqat.results.comparisons import compare_cells
from art_divqat.results.journal import CellRecord, cell_record
from art_divqat.results.probes import detail_of, is_probe, probed, sample_of, with_probes
from art_divqat.results.samples import pack

IMAGES = 40
DATA = {"dataset": {"test": IMAGES}, "evasion_images": 0}


def hits(rate: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.permutation(np.arange(IMAGES) < rate * IMAGES)


def record(attack: str, budget: int, seed: int, thief: float, probe: float | None, **more: Any) -> CellRecord:
    """A cell whose thief and probe agree, and are right, on such parts of the images."""
    samples = {key: pack(hits(thief, seed)) for key in ("agrees", "agrees_clean", "thief_correct")}
    samples["victim_correct"] = pack(hits(0.9, seed))
    names = ("agreement", "agreement_clean", "thief_accuracy")
    metrics = {
        "victim_accuracy": 0.9,
        **dict.fromkeys(names, thief),
        "extraction_ratio": thief / 0.9,
        "latency_us": 1.0,
    }
    details = {}
    if probe is not None:
        details = {detail_of(name): probe for name in names}
        for key in ("agrees", "agrees_clean", "thief_correct"):
            samples[sample_of(key)] = pack(hits(probe, seed + 100))
    cell = read_cell("digits", more.get("victim", "standard"), "none", attack, "soft", budget, seed)
    return cell_record(cell, queries=budget, metrics=metrics, samples=samples, seconds=1.0, details=details)


def test_a_probe_that_ends_above_the_thief_is_an_attacker_at_every_budget() -> None:
    records = [
        record("scout:rounds=2", budget, seed, thief, probe)
        for seed in (0, 1, 2)
        for budget, thief, probe in ((50, 0.5, 0.4), (100, 0.5, 0.8))
    ]
    found = with_probes(records)
    rows = {(row.attack, row.budget): row for row in summarise(found, DATA)}
    assert list(rows) == [("scout:rounds=2", 50), ("scout:rounds=2,thief=linear", 50),
                          ("scout:rounds=2", 100), ("scout:rounds=2,thief=linear", 100)]  # fmt: skip
    probe = rows["scout:rounds=2,thief=linear", 100].metrics
    assert probe["agreement"].mean == probe["thief_accuracy"].mean == pytest.approx(0.8)
    assert probe["extraction_ratio"].mean == pytest.approx(0.8 / 0.9)
    assert probe["victim_accuracy"].mean == pytest.approx(0.9)
    assert probe["agreement"].low is not None
    best = [c for c in compare_cells(found, ["standard"]) if c.kind == "best_attacker" and c.budget == 100]
    assert {c.attack for c in best} == {"scout:rounds=2,thief=linear"}
    # measured where it was not chosen, as any best attacker is
    assert all(c.value is not None and c.value.low is not None for c in best)


@pytest.mark.parametrize(("thief", "probe"), [(0.8, 0.8), (0.8, 0.3), (0.8, None)])
def test_one_that_does_not_is_none(thief: float, probe: float | None) -> None:
    records = [record("knockoff", budget, seed, thief, probe) for seed in (0, 1) for budget in (50, 100)]
    assert with_probes(records) == records


def test_each_curve_is_judged_by_itself_and_old_lines_hold_too_little() -> None:
    records = [
        record("knockoff", 50, 0, 0.5, 0.7),
        record("knockoff", 50, 0, 0.5, 0.3, victim="robust:epsilon=0.2"),
        record("random", 50, 0, 0.5, 0.9),
    ]
    # as a journal of an earlier version has it
    records[2]["details"] = {"linear_probe_accuracy": 0.9}
    found = [(each["cell"]["victim"], each["cell"]["attack"]) for each in with_probes(records)]
    assert found == [
        ("standard", "knockoff"),
        ("standard", "knockoff:thief=linear"),
        ("robust:epsilon=0.2", "knockoff"),
        ("standard", "random"),
    ]


def test_their_names() -> None:
    for attack in ("knockoff", "knockoff:pairs=500,recovery=dae", "jbda:seeds=own"):
        (cell,) = (each for each in with_probes([record(attack, 50, 0, 0.2, 0.6)]) if is_probe(each["cell"]["attack"]))
        assert is_probe(cell["cell"]["attack"])
        assert probed(cell["cell"]["attack"]) == str(read_cell("d", "standard", "none", attack, "soft", 1, 0).attack)
