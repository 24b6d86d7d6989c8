"""Data-free extraction of a digits victim: agreement over queries, for DFME and MAZE, on the CPU.

Usage: python evaluations/studies/data-free/run.py [--attacks dfme maze] [--budget 300000] [--seeds 3]
    [--data digits|mnist|…] [--model small-cnn|lenet5|…] [--width 64]; README.md has the command for CIFAR-10 on a GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from pathlib import Path
from typing import Any

import art
import numpy as np
import torch
from sklearn.datasets import load_digits

from art_divqat.attacks.extraction import DFME, MAZE
from art_divqat.data import load_dataset
from art_divqat.defences.postprocessor import Softmax
from art_divqat.estimators import MeteredClassifier, QueryLedger, RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model

ATTACKS = {"dfme": DFME, "maze": MAZE}


def data(name: str, root: str) -> tuple[Any, Any, Any, Any]:
    """Training images and labels, test images and labels."""
    if name == "digits":
        bunch = load_digits()
        order = np.random.default_rng(0).permutation(len(bunch.images))
        x = (bunch.images[order] / 16).astype(np.float32)[:, None]
        y = bunch.target[order].astype(np.int64)
        return x[:1297], y[:1297], x[1297:], y[1297:]
    if name != "mnist":
        found = load_dataset(name, data_root=Path(root))
        return found.x_train, found.y_train, found.x_test[:2000], found.y_test[:2000]
    from torchvision.datasets import MNIST

    parts = [MNIST(root, train=train) for train in (True, False)]
    (x, y), (tx, ty) = [((p.data.numpy() / 255).astype(np.float32)[:, None], p.targets.numpy()) for p in parts]
    return x[:20000], y[:20000], tx[:2000], ty[:2000]


def write(arguments: argparse.Namespace, victim_accuracy: float, runs: list[dict[str, Any]]) -> None:
    """Write after every point of a curve, so that an interrupted study keeps what it has."""
    result = {
        "data": arguments.data,
        "model": arguments.model,
        "width": arguments.width,
        "budget": arguments.budget,
        "victim_accuracy": victim_accuracy,
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "art": art.__version__,
            "threads": arguments.threads,
        },
        "runs": runs,
    }
    name = Path(arguments.data.removeprefix("npz:")).stem
    path = Path(__file__).with_name(f"results-{name}-{arguments.budget}.json")
    path.write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attacks", nargs="+", default=["dfme", "maze"], choices=sorted(ATTACKS))
    parser.add_argument("--budget", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", default="digits", help="digits, mnist, or any data set that evaluate takes")
    parser.add_argument("--root", default="data", help="where the data set lies")
    parser.add_argument("--model", default="small-cnn", help="of the thief, and of the victim unless it has its own")
    parser.add_argument("--victim-model")
    parser.add_argument("--victim-epochs", type=int, help="20 on digits, else 4")
    parser.add_argument("--width", type=int, default=64, help="filters of the generator's widest layer")
    parser.add_argument("--latent", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--generator-rate", type=float, default=1e-3)
    parser.add_argument("--student-rate", type=float, default=0.03)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    x, y, test_x, test_y = data(arguments.data, arguments.root)
    shape, classes, device = x.shape[1:], int(y.max()) + 1, arguments.device
    recipe = TrainingRecipe(epochs=arguments.victim_epochs or (20 if arguments.data == "digits" else 4))
    network = build_model(arguments.victim_model or arguments.model, shape, classes, seed=99)
    victim = RecipeClassifier(network, shape, classes, recipe, postprocessing_defences=[Softmax()], device=device)
    victim.fit(x, y)
    served = victim.predict(test_x).argmax(1)
    runs: list[dict[str, Any]] = []
    for name in arguments.attacks:
        for seed in range(arguments.seeds):
            curve: list[dict[str, float]] = []
            runs.append({"attack": name, "seed": seed, "curve": curve})
            start, began, spent_measuring = time.perf_counter(), time.process_time(), 0.0

            def monitor(
                queries: int, thief: Any, curve: Any = curve, start: float = start, began: float = began
            ) -> None:
                nonlocal spent_measuring
                elapsed = time.perf_counter() - start - spent_measuring
                guess = thief.predict(test_x).argmax(1)
                processor = time.process_time() - began
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                curve.append(
                    {
                        "queries": queries,
                        "agreement": float((guess == served).mean()),
                        "thief_accuracy": float((guess == test_y).mean()),
                        "seconds": round(elapsed, 2),
                        "processor_seconds": round(processor, 2),
                        "peak_memory_mib": round(memory, 1),
                    }
                )
                write(arguments, float((served == test_y).mean()), runs)
                spent_measuring = time.perf_counter() - start - elapsed

            student = build_model(arguments.model, shape, classes, seed=seed)
            thief = RecipeClassifier(student, shape, classes, recipe, seed=seed, device=device)
            meter = MeteredClassifier(victim, QueryLedger(arguments.budget))
            every = max(1, arguments.budget // 20)
            attack = ATTACKS[name](
                meter,
                arguments.budget,
                batch_size=arguments.batch_size,
                latent=arguments.latent,
                width=arguments.width,
                generator_rate=arguments.generator_rate,
                student_rate=arguments.student_rate,
                seed=seed,
                monitor=monitor,
                monitor_every=every,
            )
            attack.extract(thieved_classifier=thief)
            monitor(meter.ledger.charged, thief)
            reached = next((point for point in curve if point["agreement"] >= 0.8), None)
            print(name, seed, "agreement .8:", reached, "at the end:", curve[-1], flush=True)


if __name__ == "__main__":
    main()
