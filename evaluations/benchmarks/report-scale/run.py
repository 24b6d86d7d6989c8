"""Seconds to render 10,000 cells in every format: `python evaluations/benchmarks/report-scale/run.py [SHAPE]`.

The processor's seconds from results in memory; the first format pays for the imports. Writes results.json beside this
file, where the other shapes stay. journal.py beside it measures the whole command, with its memory.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from pathlib import Path

from journal import write_journal

from art_divqat.report import finding, render
from art_divqat.results.build import read_results
from art_divqat.results.flags import compute_flags
from art_divqat.results.schema import Results

HERE = Path(__file__).resolve().parent
# attacks and seeds, beside 10 victims × 5 defences × 2 answers × 10 budgets
SHAPES = {"5,000 groups of 2 seeds": (5, 2), "10,000 groups of 1 seed": (10, 1)}
FORMATS = ("html", "md", "json", "sarif", "junit", "csv", "flags", "finding")


def made_up_results(attacks: int, seeds: int) -> Results:
    """The results of a run of 10,000 cells that nobody ran."""
    with tempfile.TemporaryDirectory() as place:
        write_journal(Path(place), attacks, budgets=10, seeds=seeds)
        results = read_results(Path(place))
    assert len(results.cells) == 10_000
    return results


def measure(results: Results, format: str) -> dict[str, float]:
    """Seconds to render one format, and its size."""
    start = time.process_time()
    if format == "flags":
        text = str(compute_flags(results))
    else:
        text = finding(results) if format == "finding" else render(results, format)
    return {
        "cpu_seconds": round(time.process_time() - start, 2),
        "megabytes": round(len(text.encode()) / 1e6, 2),
    }


def main() -> None:
    """Measure every format of the shapes and write the results."""
    output = HERE / "results.json"
    found = json.loads(output.read_text())["measured"] if output.exists() else {}
    for name, shape in SHAPES.items():
        if len(sys.argv) == 2 and name != sys.argv[1]:
            continue
        results = made_up_results(*shape)
        found[name] = {}
        for format in FORMATS:
            found[name][format] = measure(results, format)
            print(name, format, found[name][format], flush=True)
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    output.write_text(json.dumps({"environment": machine, "measured": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
