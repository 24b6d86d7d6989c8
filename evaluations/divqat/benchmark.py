"""Int8 against fp32, and a DivQAT step against a QAT step: `python -m evaluations.divqat.benchmark`.

Alternates the two sides of every comparison and reports the median of each, so that a busy machine slows both. Sizes
are those of the serialized state. Untrained weights and random images: neither size nor speed depends on them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from art_divqat.defences.trainer import DivQATTrainer, QATTrainer, quantize_post_training
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model
from art_divqat.quantization import serialized_bytes

RESULTS = Path(__file__).parent / "results" / "benchmark.json"


def alternate(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Median seconds of each, called in turns after one warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(rounds + 1):
        for call, kept in zip((first, second), times, strict=True):
            started = time.perf_counter()
            call()
            if repeat:
                kept.append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])


def size_and_speed(model: str, shape: tuple[int, int, int], images: int, batch: int, rounds: int) -> dict[str, Any]:
    """Size and `predict` time of one network, fp32 and int8."""
    x = np.random.default_rng(0).random((images, *shape)).astype(np.float32)
    full = RecipeClassifier(build_model(model, shape, 10, seed=0), shape, 10, TrainingRecipe())
    small = quantize_post_training(full, x[:batch])
    seconds = alternate(lambda: full.predict(x, batch_size=batch), lambda: small.predict(x, batch_size=batch), rounds)
    sizes = serialized_bytes(full.model), small.description.bytes
    return {
        "model": model,
        "batch": batch,
        "description": small.description.to_dict(),
        "fp32_ms_per_image": 1e3 * seconds[0] / images,
        "int8_ms_per_image": 1e3 * seconds[1] / images,
        "speedup": seconds[0] / seconds[1],
        "fp32_bytes": sizes[0],
        "int8_bytes": sizes[1],
        "size_ratio": sizes[1] / sizes[0],
    }


def step_cost(model: str, shape: tuple[int, int, int], images: int, batch: int, rounds: int) -> dict[str, Any]:
    """Time of an epoch of QAT and of DivQAT with its defaults and given auxiliary images, in one run."""
    rng = np.random.default_rng(0)
    x, y = rng.random((images, *shape)).astype(np.float32), rng.integers(10, size=images)
    auxiliary = rng.random((images, *shape)).astype(np.float32)
    full = RecipeClassifier(build_model(model, shape, 10, seed=0), shape, 10, TrainingRecipe())

    def steps(trainer: QATTrainer) -> Callable[[], float]:
        def run() -> float:
            marks: list[float] = []
            trainer.fit(x, y, batch_size=batch, nb_epochs=1, progress=lambda *_: marks.append(time.perf_counter()))
            return statistics.median(b - a for a, b in itertools.pairwise(marks))

        return run

    plain, divergent = steps(QATTrainer(full)), steps(DivQATTrainer(full, auxiliary=auxiliary))
    pairs = [(plain(), divergent()) for _ in range(rounds)]
    medians = statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)
    return {
        "model": model,
        "batch": batch,
        "qat_step_ms": 1e3 * medians[0],
        "divqat_step_ms": 1e3 * medians[1],
        "ratio": medians[1] / medians[0],
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=128, help="images a measurement, ResNet-18 at 32×32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    report = {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": options.threads,
        "inference": [
            size_and_speed("resnet18", (3, 32, 32), options.images, 32, options.rounds),
            size_and_speed("small-cnn", (1, 28, 28), 8 * options.images, 128, options.rounds),
        ],
        "training": [step_cost("small-cnn", (1, 28, 28), 8 * options.images, 64, options.rounds)],
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
