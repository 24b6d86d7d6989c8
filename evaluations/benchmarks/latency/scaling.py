"""How the cost of a postprocessor grows with the answers N and the classes C, and the memory it takes.

python evaluations/benchmarks/latency/scaling.py

One thread; the best of a few calls, after a warm-up. The slope is that of a least-squares line through log(time) over
log(size), on sizes large enough that the fixed price of a call does not show: 1 is linear. Memory is the peak that
numpy reports to tracemalloc during one call, over the bytes of its input; the output is one of them.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from run import HERE, machine, postprocessors
from threadpoolctl import threadpool_limits

from art_divqat.defences.postprocessor import Softmax

ANSWERS = (1_000, 3_000, 10_000, 30_000, 100_000)  # at 10 classes
CLASSES = (10, 30, 100, 300, 1_000)  # at 3,000 answers
SLOW = {"modelguard": 10}  # a sort for each answer: a tenth of the sizes says as much


def answers_of(n: int, classes: int) -> NDArray[np.float32]:
    """Probabilities, every second row of them confident."""
    logits = np.random.default_rng(0).normal(0, 2, (n, classes)).astype(np.float32)
    logits[::2, 0] += 12
    rows: NDArray[np.float32] = Softmax()(logits)
    return rows


def best_seconds(call: Any, rows: NDArray[np.float32], repeats: int) -> float:
    """The shortest of some calls: what else runs on the machine only ever adds."""
    call(rows)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call(rows)
        times.append(time.perf_counter() - started)
    return min(times)


def slope(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """The exponent of the power law that fits best."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def peak_memory(call: Any, rows: NDArray[np.float32]) -> float:
    """Peak bytes of one call over those of its input."""
    call(rows)
    tracemalloc.start()
    try:
        call(rows)
        return tracemalloc.get_traced_memory()[1] / rows.nbytes
    finally:
        tracemalloc.stop()


def measure(scale: int, repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds at every size, the two slopes and the memory of every postprocessor."""
    table = {}
    for name in postprocessors(10):
        part = scale * SLOW.get(name, 1)
        sizes = tuple(n // part for n in ANSWERS)
        over_n = [best_seconds(postprocessors(10)[name], answers_of(n, 10), repeats) for n in sizes]
        over_c = [best_seconds(postprocessors(c)[name], answers_of(3_000 // part, c), repeats) for c in CLASSES]
        table[name] = {
            "answers": sizes,
            "seconds_over_answers": over_n,
            "slope_in_answers": round(slope(sizes, over_n), 3),
            "classes": CLASSES,
            "seconds_over_classes": over_c,
            "slope_in_classes": round(slope(CLASSES, over_c), 3),
            "peak_memory": round(peak_memory(postprocessors(100)[name], answers_of(30_000 // scale, 100)), 2),
        }
        print(name, {key: value for key, value in table[name].items() if not isinstance(value, list | tuple)})
    return table


def page(report: dict[str, Any]) -> str:
    """The results as Markdown."""
    facts = report["machine"]
    lines = [
        "# How cost grows with answers and classes",
        "",
        "    python evaluations/benchmarks/latency/scaling.py",
        "",
        *(__doc__ or "").split("\n\n", 2)[2].strip().splitlines(),
        "",
        f"Answers: {ANSWERS[0]:,} to {ANSWERS[-1]:,} at 10 classes; classes: {CLASSES[0]} to {CLASSES[-1]:,} at 3,000",
        "answers; for modelguard a tenth of the answers. Memory at 30,000 answers of 100 classes.",
        f"One core of an {facts['cpu']} ({facts['vector_instructions']}), numpy {facts['numpy']}.",
        "",
        "| defence | slope in N | slope in C | peak memory, inputs |",
        "|---|---|---|---|",
    ]
    for name, row in report["results"].items():
        cells = f"{row['slope_in_answers']:.2f} | {row['slope_in_classes']:.2f} | {row['peak_memory']:.2f}"
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=int, default=1, help="divide the numbers of answers by this, for a quick try")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    with threadpool_limits(1):
        report = {"machine": machine(), "results": measure(options.scale, options.repeats)}
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "scaling.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.output / "scaling.md").write_text(page(report))


if __name__ == "__main__":
    main()
