"""Int8 against fp32, and a DivQAT step against a QAT step: `python -m evaluations.studies.divqat.benchmark`.

Alternates the two sides of every comparison, so that a busy machine slows both, and reports the median of each and the
median and the range of the ratio of neighbours. Sizes are those of the serialized state.
Untrained weights and random images: neither size nor speed depends on them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_divqat.defences.trainer import DivQATTrainer, QATTrainer, quantize_post_training
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model
from art_divqat.quantization import serialized_bytes

RESULTS = Path(__file__).parent / "results" / "benchmark.json"


def alternate(first: Callable[[], float], second: Callable[[], float], rounds: int) -> list[tuple[float, float]]:
    """The seconds that each says it took, called in turns after one warm-up."""
    return [(first(), second()) for _ in range(rounds + 1)][1:]


def median_ms(seconds: Iterable[float]) -> float:
    """Median, in milliseconds."""
    return 1e3 * statistics.median(seconds)


def ratio(name: str, ratios: list[float]) -> dict[str, Any]:
    """Median and range of the ratios of neighbouring measurements."""
    return {name: statistics.median(ratios), f"{name}_range": [min(ratios), max(ratios)]}


def size_and_speed(model: str, shape: tuple[int, int, int], images: int, batch: int, rounds: int) -> dict[str, Any]:
    """Size and `predict` time of one network, fp32 and int8."""
    x = np.random.default_rng(0).random((images, *shape)).astype(np.float32)
    full = RecipeClassifier(build_model(model, shape, 10, seed=0), shape, 10, TrainingRecipe())
    small = quantize_post_training(full, x[:batch])

    def predict(classifier: PyTorchClassifier) -> Callable[[], float]:
        def run() -> float:
            started = time.perf_counter()
            classifier.predict(x, batch_size=batch)
            return (time.perf_counter() - started) / images

        return run

    pairs = alternate(predict(full), predict(small), rounds)
    sizes = serialized_bytes(full.model), small.description.bytes
    return {
        "model": model,
        "batch": batch,
        "description": small.description.to_dict(),
        "fp32_ms_per_image": median_ms(a for a, _ in pairs),
        "int8_ms_per_image": median_ms(b for _, b in pairs),
        **ratio("speedup", [a / b for a, b in pairs]),
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

    pairs = alternate(
        steps(QATTrainer(full)), steps(DivQATTrainer(full, auxiliary=auxiliary, auxiliary_mixture=False)), rounds
    )
    return {
        "model": model,
        "batch": batch,
        "qat_step_ms": median_ms(a for a, _ in pairs),
        "divqat_step_ms": median_ms(b for _, b in pairs),
        **ratio("ratio", [b / a for a, b in pairs]),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
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
