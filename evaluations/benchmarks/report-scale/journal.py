"""`art-divqat report` on journals of 10,000 cells, as its user runs it: seconds and peak memory of the whole command.

`python evaluations/benchmarks/report-scale/journal.py [SHAPE]` writes journal-results.json beside this file. The
journals are made here, with 1,000 test images a cell and all that a cell keeps of them; nothing is trained.
Seconds are wall time, the process's start among it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from art_divqat.plan.cells import Cell
    from art_divqat.results.journal import CellRecord

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]

FORMATS = ("html", "md", "json", "sarif", "junit", "csv")
# (attacks, budgets, seeds) beside 10 victims × 5 defences × 2 answers
SHAPES = {
    "2,000 groups of 5 seeds": (2, 10, 5),
    "5,000 groups of 2 seeds": (5, 10, 2),
    "10,000 groups of 1 seed": (10, 10, 1),
}
TEST_IMAGES, EVASION_IMAGES = 1_000, 200
RADII = (0.0, 0.05, 0.1, 0.2, 0.4)
LIMIT_SECONDS, LIMIT_MIB = 10.0, 1024


def write_journal(folder: Path, attacks: int, budgets: int, seeds: int) -> None:
    """A finished run of 10,000 cells: thieves a little better with every budget, a little worse with every defence."""
    from art_divqat.plan.cells import plan_cells
    from art_divqat.plan.config import make_config
    from art_divqat.plan.presets import resolve
    from art_divqat.results.journal import Journal

    config = resolve(
        make_config(
            {
                "victims": ["standard", *(f"robust:epsilon=0.{i}" for i in range(1, 10))],
                "defences": ["none", *(f"heuristic:beta=0.{i}" for i in range(1, 5))],
                "attacks": ["knockoff", *(f"jbda:nb_seeds={i}" for i in range(10, 10 + attacks - 1))],
                "budgets": [100 * (i + 1) for i in range(budgets)],
                "seeds": seeds,
                "query_pool": "in-distribution",
            }
        )
    )
    plan = plan_cells(config)
    assert len(plan) == 10_000
    rng = np.random.default_rng(0)
    journal = Journal(folder / "journal.jsonl")
    journal.start(
        {
            "schema_version": 1,
            "tool": {"name": "art-divqat", "version": "0.1.0"},
            "environment": {"python": "3.11", "device": "cpu", "packages": {}},
            "started": "2026-11-24T00:00:00+00:00",
            "config": config.for_results(),
            "data": {
                "dataset": {"name": "digits", "train": 1_000, "test": TEST_IMAGES, "checksum": "ab" * 32},
                "pool": {"name": "in-distribution", "images": 5_000, "labelled": True, "overlap": 0.0},
                "evasion_images": EVASION_IMAGES,
            },
        }
    )
    sync, os.fsync = os.fsync, lambda handle: None
    try:
        for cell in plan:
            journal.append(_record(cell, config.budgets[-1], rng))
    finally:
        os.fsync = sync


def _record(cell: Cell, largest: int, rng: np.random.Generator) -> CellRecord:
    from art_divqat.results.journal import cell_record
    from art_divqat.results.samples import curve_sample, pack

    defended, victim = bool(cell.defence.links), str(cell.victim)
    rate = 0.9 - 20 / cell.budget - 0.1 * defended + 0.03 * victim.startswith("robust")
    rates = {"thief_correct": rate, "agrees": rate, "agrees_clean": rate}
    hits = {name: rng.random(TEST_IMAGES) < share for name, share in rates.items()}
    # the victim's own are the same whatever the attack
    of_victim = np.random.default_rng([cell.seed, len(victim), ord(victim[-1])])
    hits["victim_correct"] = of_victim.random(TEST_IMAGES) < 0.97
    if not defended:
        hits["agrees_clean"] = hits["agrees"]
    # what survives shrinks with ε, image by image
    strength = {name: rng.random(EVASION_IMAGES) for name in _ROBUST}
    strength["victim_robust_accuracy"] = of_victim.random(EVASION_IMAGES)
    robust = {name: strength[name] > 0.4 for name in _ROBUST}
    points = {name: {radius: strength[name] > 2 * radius for radius in RADII} for name in _CURVES}
    on_curves = points if cell.budget == largest else {}
    metrics = {
        "victim_accuracy": 0.97,
        "defended_accuracy": 0.97 - 0.005 * defended,
        "thief_accuracy": float(hits["thief_correct"].mean()),
        "agreement": float(hits["agrees"].mean()),
        "agreement_clean": float(hits["agrees_clean"].mean()),
        "extraction_ratio": float(hits["thief_correct"].mean()) / 0.97,
        "label_flip_rate": 0.005 * defended,
        "l1_distortion": 0.3 * defended,
        "kl_divergence": 0.1 * defended,
        "latency_us": 10.0,
        **{name: float(each.mean()) for name, each in robust.items()},
    }
    samples = {
        **hits,
        **{name: robust[name] for name in _CURVES},
        **{curve_sample(name, r): each for name, curve in on_curves.items() for r, each in curve.items()},
    }
    return cell_record(
        cell,
        queries=cell.budget,
        metrics=metrics,
        samples={name: pack(values) for name, values in samples.items()},
        details={"thief_final_loss_slope": -0.01, "victim_simplex_error": 1e-7, "victim_nondeterminism": 0.0},
        curves={
            name: [{"epsilon": r, "value": float(each.mean())} for r, each in curve.items()]
            for name, curve in on_curves.items()
        },
        seconds=1.5,
    )


_CURVES = ("victim_robust_accuracy", "thief_robust_accuracy", "transfer_robust_accuracy")
_ROBUST = (*_CURVES, "transfer_attack_success")


def measure(folder: Path, output_format: str) -> dict[str, float]:
    """Wall seconds and peak memory of one `art-divqat report`."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "art_divqat", "report", str(folder), "--format", output_format],
        stdout=(folder / "out").open("wb"),
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, status
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_memory_mib": round(usage.ru_maxrss / 1024),
        "megabytes": round((folder / "out").stat().st_size / 1e6, 2),
    }


def main() -> None:
    """Measure every shape and format; fails beyond the limits."""
    wanted = {name: shape for name, shape in SHAPES.items() if len(sys.argv) < 2 or name == sys.argv[1]}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, shape in wanted.items():
        with tempfile.TemporaryDirectory() as place:
            write_journal(Path(place), *shape)
            for output_format in FORMATS:
                found.setdefault(name, {})[output_format] = measure(Path(place), output_format)
                print(name, output_format, found[name][output_format], flush=True)
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    (HERE / "journal-results.json").write_text(json.dumps({"environment": machine, "measured": found}, indent=2) + "\n")
    over = [
        f"{name}, {each}"
        for name, formats in found.items()
        for each, got in formats.items()
        if got["seconds"] > LIMIT_SECONDS or got["peak_memory_mib"] > LIMIT_MIB
    ]
    if over:
        raise SystemExit(f"Beyond {LIMIT_SECONDS:g} s or {LIMIT_MIB} MiB: {'; '.join(over)}")


if __name__ == "__main__":
    main()
