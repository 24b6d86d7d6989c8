"""Seconds and peak memory of every format on 10,000 cells: `python evaluations/benchmarks/report-scale/run.py`.

Each format runs in a process of its own, so that its peak memory is its own. Writes results.json beside this file.
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
# 10 victims × 5 defences × 5 attacks × 2 answers × 10 budgets, two seeds; or four times the attacks, one seed
SHAPES = {"5,000 groups of 2 seeds": (5, 2), "10,000 groups of 1 seed": (10, 1)}


def measure(attacks: int, seeds: int, format: str) -> dict[str, float]:
    """Seconds to render one format, its size, and the peak memory of the process that did."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from support.builders import make_results

    results = make_results(
        victims=("standard", *(f"robust:epsilon=0.{i}" for i in range(1, 10))),
        defences=("none", *(f"heuristic:beta=0.{i}" for i in range(1, 5))),
        attacks=("knockoff", *(f"attack-{i}" for i in range(1, attacks))),
        budgets=tuple(range(100, 1_001, 100)),
        seeds=seeds,
        details={"thief_final_loss_slope": -0.01, "victim_simplex_error": 1e-7},
    )
    assert len(results.cells) == 10_000
    start = time.perf_counter()
    if format == "flags":
        from art_divqat.results.flags import compute_flags

        text = str(compute_flags(results))
    else:
        from art_divqat.report import finding, render

        text = finding(results) if format == "finding" else render(results, format)
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "megabytes": round(len(text.encode()) / 1e6, 2),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    """Measure every shape and format and write the results."""
    if len(sys.argv) == 4:
        print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
        return
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, (attacks, seeds) in SHAPES.items():
        for format in ("html", "md", "json", "sarif", "junit", "csv", "flags", "finding"):
            command = [sys.executable, __file__, str(attacks), str(seeds), format]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.setdefault(name, {})[format] = json.loads(done.stdout)
            print(name, format, found[name][format], flush=True)
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    (HERE / "results.json").write_text(json.dumps({"environment": machine, "measured": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
