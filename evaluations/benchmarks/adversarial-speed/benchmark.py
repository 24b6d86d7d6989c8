"""Native robust training and evasion against ART's and torchattacks' own: same model, batch, steps, alternating.

    python evaluations/benchmarks/adversarial-speed/benchmark.py --rounds 3 --epochs 6 --out FILE

One thread. Every round runs all rivals one after the other, so that what else the machine does meets all of them alike.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import art
import numpy as np
import torch
import torchattacks
from art.attacks.evasion import ProjectedGradientDescent
from art.defences.trainer import AdversarialTrainerMadryPGD
from art.estimators.classification import PyTorchClassifier
from sklearn.datasets import load_digits
from torch import nn

from art_divqat._rng import isolated_random_state
from art_divqat.attacks.evasion import craft
from art_divqat.defences.trainer.madry import MadryPGDTrainer
from art_divqat.models import build_model

EPSILON, BATCH, TRAIN_STEPS, EVASION_STEPS = 0.2, 64, 7, 20


def art_classifier(seed: int) -> PyTorchClassifier:
    """The same network, loss and optimiser for everyone."""
    network = build_model("small-cnn", (1, 8, 8), 10, seed=seed)
    return PyTorchClassifier(
        model=network,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.Adam(network.parameters(), lr=1e-3),
        input_shape=(1, 8, 8),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds and result, without the bars that ART prints.

    CPU and not wall-clock seconds: one thread works, and what else the machine does then counts for nobody.
    """
    with contextlib.redirect_stderr(io.StringIO()):
        start = time.process_time()
        result = action()
        return time.process_time() - start, result


def train(kind: str, seed: int, epochs: int, data: dict[str, np.ndarray]) -> dict[str, float]:
    """Seconds of training, clean accuracy, and accuracy under the same attack."""
    classifier = art_classifier(seed)
    step = 2.5 * EPSILON / TRAIN_STEPS
    with isolated_random_state("benchmark", seed):
        if kind.startswith("native"):
            trainer = MadryPGDTrainer(
                classifier,
                epsilon=EPSILON,
                nb_epochs=epochs,
                batch_size=BATCH,
                max_iter=TRAIN_STEPS,
                seed=seed,
                inner_precision=kind.partition("-")[2],
            )
        else:
            trainer = AdversarialTrainerMadryPGD(
                classifier, nb_epochs=epochs, batch_size=BATCH, eps=EPSILON, eps_step=step, max_iter=TRAIN_STEPS
            )
            trainer.attack.verbose = False
        seconds, _ = timed(lambda: trainer.fit(data["x"], data["y"]))
    classifier.model.eval()
    x, y = data["x_test"], data["y_test"]
    crafted = craft(classifier, x, y, epsilon=EPSILON, steps=EVASION_STEPS, seed=0)
    rates = {name: float((classifier.predict(z).argmax(1) == y).mean()) for name, z in (("clean", x), ("pgd", crafted))}
    return {"seconds": seconds, **rates}


def evade(kind: str, classifier: PyTorchClassifier, data: dict[str, np.ndarray]) -> dict[str, float]:
    """Seconds of one PGD attack, and the accuracy that it leaves."""
    x, y, step = data["x_test"], data["y_test"], 2.5 * EPSILON / EVASION_STEPS
    common = {"epsilon": EPSILON, "steps": EVASION_STEPS, "batch_size": BATCH, "seed": 0}
    with isolated_random_state("benchmark-evasion"):
        if kind.startswith("native"):
            seconds, crafted = timed(lambda: craft(classifier, x, y, early_stop="early" in kind, **common))
        elif kind == "torchattacks":
            attack = torchattacks.PGD(classifier.model, eps=EPSILON, alpha=step, steps=EVASION_STEPS)
            pairs = [(torch.from_numpy(x[i : i + BATCH]), torch.from_numpy(y[i : i + BATCH])) for i in starts(x)]
            seconds, crafted = timed(lambda: torch.cat([attack(*pair) for pair in pairs]).numpy())
        else:
            attack = ProjectedGradientDescent(
                classifier,
                eps=EPSILON,
                eps_step=step,
                max_iter=EVASION_STEPS,
                num_random_init=1,
                batch_size=BATCH,
                verbose=False,
            )
            seconds, crafted = timed(lambda: attack.generate(x, y))
    return {"seconds": seconds, "pgd": float((classifier.predict(crafted).argmax(1) == y).mean())}


def starts(x: np.ndarray) -> range:
    """Where the batches begin."""
    return range(0, len(x), BATCH)


def inner_step(dtype: str, channels_last: bool, side: int, compiled: bool = False) -> float:
    """Median milliseconds of one inner step (gradient of the loss on the input) on one batch, compilation left out."""
    network: nn.Module = build_model("small-cnn", (1, side, side), 10, seed=0).eval()
    x, y = torch.rand(BATCH, 1, side, side), torch.randint(0, 10, (BATCH,))
    if channels_last:
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    if compiled:
        network = torch.compile(network)

    def step() -> None:
        point = x.clone().requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = network(point)
        torch.autograd.grad(nn.functional.cross_entropy(logits.float(), y, reduction="sum"), point)

    step()
    return 1e3 * statistics.median(timed(step)[0] for _ in range(40))


def main() -> None:
    """Run everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="time torch.compile as well; needs a C++ compiler")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8), y[order].astype(np.int64)
    data = {"x": x[:900], "y": y[:900], "x_test": x[1200:1600], "y_test": y[1200:1600]}

    kinds = ("native-float32", "native-bfloat16", "art")
    training: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for seed in range(arguments.rounds):
        for kind in training:
            training[kind].append(train(kind, seed, arguments.epochs, data))
            print(kind, training[kind][-1], flush=True)
    victim = art_classifier(0)
    MadryPGDTrainer(victim, epsilon=EPSILON, nb_epochs=5, max_iter=3).fit(data["x"], data["y"])
    victim.model.eval()
    evasion: dict[str, list[dict[str, float]]] = {"native": [], "native-early-stop": [], "torchattacks": [], "art": []}
    for _ in range(arguments.rounds):
        for kind in evasion:
            evasion[kind].append(evade(kind, victim, data))
    precision = {
        f"{side}×{side}, {dtype}{', channels last' if last else ''}": inner_step(dtype, last, side)
        for side in (8, 28)
        for dtype in ("float32", "bfloat16")
        for last in (False, True)
    }
    if arguments.compile:
        for side in (8, 28):
            key = f"{side}×{side}, float32, channels last, torch.compile"
            precision[key] = inner_step("float32", True, side, compiled=True)
    speedups = {
        kind: [a["seconds"] / n["seconds"] for a, n in zip(training["art"], training[kind], strict=True)]
        for kind in kinds[:2]
    }
    results = {
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "art": art.__version__,
            "torchattacks": torchattacks.__version__,
            "threads": 1,
        },
        "settings": {
            "epsilon": EPSILON,
            "batch": BATCH,
            "training_steps": TRAIN_STEPS,
            "evasion_steps": EVASION_STEPS,
            "epochs": arguments.epochs,
            "rounds": arguments.rounds,
        },
        "training": training,
        "training_speedup": {kind: {"median": statistics.median(v), "rounds": v} for kind, v in speedups.items()},
        "evasion": evasion,
        "inner_step_milliseconds": precision,
    }
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps({k: results[k] for k in ("training_speedup", "evasion", "inner_step_milliseconds")}, indent=1))


if __name__ == "__main__":
    main()
