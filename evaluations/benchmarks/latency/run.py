"""What a defence adds to an answer: microseconds per query for every defence, alone and with the victim.

python evaluations/benchmarks/latency/run.py

Protocol: one process, one torch thread, one BLAS thread, one defence and one setting at a time. Every call is timed
separately, after a warm-up; the median and the 95th percentile over the calls are divided by the batch size. *Alone* is
the perturbation of existing answers. For MAD, GRAD² and adaptive misinformation it includes the forward pass of their
own network, which the perturbation needs. *End to end* is `predict` of the defended classifier, including the victim's
own forward pass. Victim and surrogates have the same architecture, as in the papers.
"""

# ruff: noqa: E402  (the thread counts must be set before numpy is imported)
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import art
import art.defences.postprocessor as art_postprocessors
import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_divqat.defences import postprocessor as ours
from art_divqat.defences.gradient import GRAD2, MAD, AdaptiveMisinformation, untrained_surrogate
from art_divqat.models import build_model

HERE = Path(__file__).parent
SHAPE = (3, 32, 32)
FLOOR = "softmax (the floor)"


def time_calls(call: Callable[..., Any], pieces: list[tuple[Any, ...]], batch: int, seconds: float) -> dict[str, float]:
    """Median and 95th percentile in microseconds per query over whole rounds of the pieces, each piece a batch."""
    for piece in pieces:
        call(*piece)
    started, times = time.perf_counter(), []
    while len(times) < 10 or (time.perf_counter() - started < seconds and len(times) < 3000):
        for piece in pieces:
            before = time.perf_counter()
            call(*piece)
            times.append(time.perf_counter() - before)
    median, p95 = np.percentile(times, [50, 95]) * 1e6 / batch
    return {"median_us": round(float(median), 3), "p95_us": round(float(p95), 3), "calls": len(times)}


def postprocessors(n_classes: int) -> dict[str, Any]:
    gamma = 0.1 if n_classes >= 100 else 0.2
    return {
        "heuristic (gate mixed)": ours.HeuristicPerturbation(0.5, gamma),
        "heuristic (gate open)": ours.HeuristicPerturbation(1.2, gamma),
        "heuristic (label kept)": ours.HeuristicPerturbation(1.2, gamma, preserve_label=True),
        "reverse-sigmoid": ours.ReverseSigmoid(0.5, gamma),
        "ART ReverseSigmoid": art_postprocessors.ReverseSigmoid(0.5, gamma),
        "random": ours.RandomPerturbation(1.0),
        "gaussian-noise": ours.GaussianNoise(0.1),
        "top-k": ours.TopK(3),
        "rounding": ours.Rounding(2),
        "high-confidence": ours.HighConfidence(0.25),
        "labels": ours.ClassLabels(),
        "modelguard": ours.ModelGuard(0.5),
    }


def measure(n_classes: int, batch: int, model: str, seconds: float) -> dict[str, dict[str, Any]]:
    generator = np.random.default_rng(0)
    # Single answers are asked for in turn, so that a batch of one meets confident and unsure ones as a large one does.
    count = max(batch, 16)
    x = generator.uniform(0, 1, (count, *SHAPE)).astype(np.float32)
    # Half confident, half not, so that the gate has both to do.
    logits = generator.normal(0, 2, (count, n_classes)).astype(np.float32)
    logits[::2, 0] += 12
    softmax = ours.Softmax()
    answers = softmax(logits)

    def timed(call: Callable[..., Any], *arrays: Any) -> dict[str, float]:
        pieces = [tuple(array[i : i + batch] for array in arrays) for i in range(0, count, batch)]
        return time_calls(call, pieces, batch, seconds)

    def both(alone: dict[str, float], served: Any) -> dict[str, dict[str, float]]:
        return {"alone": alone, "end_to_end": timed(lambda part: served.predict(part, batch_size=256), x)}

    def victim(*defences: Any) -> Any:
        return PyTorchClassifier(
            build_model(model, SHAPE, n_classes, seed=0).eval(),
            torch.nn.CrossEntropyLoss(),
            SHAPE,
            n_classes,
            postprocessing_defences=[softmax, *defences],
            device_type="cpu",
        )

    surrogate = untrained_surrogate(SHAPE, n_classes, model=model, seed=1)
    wrappers = {
        "mad": MAD(surrogate, 0.5),
        "mad (label kept)": MAD(surrogate, 0.5, preserve_label=True),
        "grad2 (ones)": GRAD2(surrogate, 0.5, target="ones"),
        "grad2 (clean)": GRAD2(surrogate, 0.5, target="clean"),
        "adaptive-misinformation": AdaptiveMisinformation(surrogate, 0.5),
    }
    clean = victim()
    table = {FLOOR: both(timed(softmax, logits), clean)}
    for name, post in postprocessors(n_classes).items():
        table[name] = both(timed(post, answers), victim(post))
    for name, defence in wrappers.items():
        table[name] = both(timed(defence.perturb, x, answers), defence.defend(clean))
    return table


def machine() -> dict[str, str]:
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    flags: set[str] = set()
    if info.exists():
        lines = [line.split(":", 1) for line in info.read_text().splitlines() if ":" in line]
        facts = {key.strip(): value.strip() for key, value in lines}
        name, flags = facts.get("model name", name), set(facts.get("flags", "").split())
    widest = next((flag for flag in ("avx512f", "avx2", "avx") if flag in flags), "none known")
    return {
        "cpu": name,
        "vector_instructions": widest,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "art": art.__version__,
    }


def targets(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The stated targets against what this run measured, met or not."""
    rows = []

    def add(target: str, value: float, bound: float, higher_is_better: bool = False) -> None:
        met = value >= bound if higher_is_better else value <= bound
        rows.append({"target": target, "measured": round(value, 3), "bound": bound, "met": bool(met)})

    for setting, table in results.items():
        _, classes, batch = setting.split("/")
        alone = {name: cell["alone"]["median_us"] for name, cell in table.items()}
        slowest = max(alone[name] for name in alone if name.startswith("heuristic ("))
        for rival in ("mad", "grad2 (ones)", "grad2 (clean)"):
            add(f"{setting}: times cheaper than {rival}", alone[rival] / slowest, 37, higher_is_better=True)
        if classes == "C=100" and batch == "batch=256":
            add(f"{setting}: microseconds per row", slowest, 1)
            plain = max(alone["heuristic (gate mixed)"], alone["heuristic (gate open)"])
            add(f"{setting}: ratio to ART's ReverseSigmoid", plain / alone["ART ReverseSigmoid"], 1)
            add(f"{setting}: ratio to ART's ReverseSigmoid, label kept", slowest / alone["ART ReverseSigmoid"], 1)
            add(f"{setting}: ratio to one softmax", slowest / alone[FLOOR], 4)
    return rows


def readme(report: dict[str, Any]) -> str:
    facts = report["machine"]
    lines = [
        "# Latency of the defences",
        "",
        "    python evaluations/benchmarks/latency/run.py",
        "",
        *(__doc__ or "").split("\n\n", 2)[2].strip().splitlines(),
        "",
        f"Measured on one core of an {facts['cpu']} ({facts['vector_instructions']}), Python {facts['python']}, "
        f"numpy {facts['numpy']}, torch {facts['torch']}, ART {facts['art']}.",
        "",
        "MAD and GRAD² are batched and use closed forms or one forward-mode derivative (see their docstrings): a",
        "version with one backward pass per class would be C times slower, and an unfair comparison.",
        "",
        "## Targets",
        "",
        "The slowest of the three heuristic settings counts. A single answer (batch 1) costs about as much as ten",
        "numpy calls, whatever the formula; a larger network makes the rivals more expensive, not the heuristic.",
        "",
        "| model / classes / batch: target | measured | bound | met |",
        "|---|---|---|---|",
        *[
            f"| {row['target']} | {row['measured']:g} | {row['bound']:g} | {'yes' if row['met'] else '**no**'} |"
            for row in report["targets"]
        ],
        "",
    ]
    for setting, table in report["results"].items():
        base = table[FLOOR]["end_to_end"]["median_us"]
        lines += [
            f"## {setting}",
            "",
            "Microseconds per query, median (95th percentile); the ratio compares end-to-end times (undefended: 1).",
            "",
            "| defence | alone | end to end | ratio |",
            "|---|---|---|---|",
        ]
        for name, cell in table.items():
            a, e = cell["alone"], cell["end_to_end"]
            lines.append(
                f"| {name} | {a['median_us']:.2f} ({a['p95_us']:.2f}) | {e['median_us']:.1f} ({e['p95_us']:.1f}) "
                f"| {e['median_us'] / base:.3f} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.1, help="measured time per cell")
    parser.add_argument("--models", nargs="+", default=["lenet5"])
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {
        f"{model}/C={n_classes}/batch={batch}": measure(n_classes, batch, model, options.seconds)
        for model in options.models
        for n_classes in (10, 100)
        for batch in (1, 256)
    }
    report = {"machine": machine(), "torch_threads": 1, "results": results, "targets": targets(results)}
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.output / "README.md").write_text(readme(report))
    missed = [row["target"] for row in report["targets"] if not row["met"]]
    print(f"{len(report['targets']) - len(missed)} of {len(report['targets'])} targets met; missed: {missed or 'none'}")


if __name__ == "__main__":
    main()
