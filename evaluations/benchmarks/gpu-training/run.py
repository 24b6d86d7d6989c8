"""Images a second in ordinary and in adversarial training: this package, itself in version 0.1, and a plain loop.

    python evaluations/benchmarks/gpu-training/run.py --device cuda --seconds 3 --out FILE

ResNet-18 at 32×32, SGD. What happens once in a run (images to the device, recording, the first steps) is left out.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loops
import torch
from torch import Tensor

from art_divqat.defences.trainer.madry import MadryPGDTrainer
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.estimators.descent import STEPS_WORTH_A_GRAPH
from art_divqat.models import build_model

SHAPE, CLASSES = (3, 32, 32), 10
FAST: dict[str, Any] = {"precision": "bfloat16", "cuda_graphs": True}
# steps before the clock starts
WARM_UP = 10

Loop = Callable[[Tensor, Tensor, int, int, loops.Progress], None]


def ours(
    device: str, images: Tensor, labels: Tensor, batch: int, epochs: int, done: loops.Progress, **options: Any
) -> None:
    """`RecipeClassifier.fit` with these options of its recipe."""
    classifier = fresh(device, epochs, batch, options)
    classifier.progress = lambda steps, _: done(steps)
    classifier.fit(images.numpy(), labels.numpy())


def ours_madry(
    device: str, images: Tensor, labels: Tensor, batch: int, epochs: int, done: loops.Progress, **options: Any
) -> None:
    """`MadryPGDTrainer.fit` on such a classifier."""
    trainer = MadryPGDTrainer(
        fresh(device, epochs, batch, options),
        epsilon=loops.EPSILON,
        max_iter=loops.STEPS,
        nb_epochs=epochs,
        batch_size=batch,
        progress=lambda steps, _: done(steps),
    )
    trainer.fit(images.numpy(), labels.numpy())


def fresh(device: str, epochs: int, batch: int, options: dict[str, Any]) -> RecipeClassifier:
    """An untrained classifier."""
    recipe = TrainingRecipe(epochs, batch, "sgd", loops.RATE, weight_decay=loops.DECAY, schedule="constant", **options)
    return RecipeClassifier(
        build_model(model_of(device), SHAPE, CLASSES, seed=0), SHAPE, CLASSES, recipe, device=device
    )


def model_of(device: str) -> str:
    """ResNet-18; on a CPU, where only the script is tried, a small one."""
    return "lenet5" if device == "cpu" else "resnet18"


def others(device: str, loop: Callable[..., None], *given: Any, **options: Any) -> None:
    """A loop of the other file, on the same network."""
    loop(build_model(model_of(device), SHAPE, CLASSES, seed=0).to(device), *given, **options)


def contenders(device: str) -> dict[str, dict[str, Loop]]:
    """The loops by kind of training and name."""
    part = functools.partial
    augmented = FAST | {"augmentation": "crop-flip", "label_smoothing": 0.1, "warm_up": 0.1}
    return {
        "ordinary": {
            "version 0.1": part(others, device, loops.first_version),
            "plain loop": part(others, device, loops.plain, attacked=False),
            "ours, float32": part(ours, device),
            "ours, bfloat16": part(ours, device, precision="bfloat16"),
            "ours, bfloat16, recorded": part(ours, device, **FAST),
            "ours, bfloat16, recorded, augmented": part(ours, device, **augmented),
        },
        "Madry": {
            "version 0.1, attack in float32": part(others, device, loops.first_version_madry, inner="float32"),
            "version 0.1, attack in bfloat16": part(others, device, loops.first_version_madry, inner="bfloat16"),
            "plain loop": part(others, device, loops.plain, attacked=True),
            "ours, bfloat16": part(ours_madry, device, precision="bfloat16"),
            "ours, bfloat16, recorded": part(ours_madry, device, **FAST),
            "ours, bfloat16, recorded, augmented": part(ours_madry, device, **augmented),
        },
    }


class Clock:
    """Images a second between the end of the warm-up and the last step."""

    def __init__(self, device: str, batch: int, first: int, last: int) -> None:
        self._waits = device.startswith("cuda")
        self._batch, self._first, self._last = batch, first, last
        self._start = 0.0
        self.rate = 0.0

    def __call__(self, steps: int) -> None:
        if steps == self._first:
            self._start = self._now()
        elif steps == self._last:
            self.rate = (self._last - self._first) * self._batch / (self._now() - self._start)

    def _now(self) -> float:
        if self._waits:
            torch.cuda.synchronize()
        return time.perf_counter()


def measure(loop: Loop, device: str, batch: int, seconds: float, *, recorded: bool, small: bool) -> float:
    """Images a second, over about so many seconds."""
    warm_up, fewest, per_epoch = (1, 1, 2) if small else (WARM_UP, WARM_UP, WARM_UP)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (per_epoch * batch, *SHAPE), generator=generator, dtype=torch.uint8).float() / 255
    labels = torch.randint(0, CLASSES, (len(images),), generator=generator)
    steps, rate = fewest, 0.0
    # the first run says how many steps the second takes
    for _ in range(1 if small else 2):
        epochs = -(-(warm_up + steps) // per_epoch)
        clock = Clock(device, batch, warm_up, epochs * per_epoch)
        loop(images, labels, batch, epochs, clock)
        rate, steps = clock.rate, max(fewest, int(seconds * clock.rate / batch))
        if recorded:
            steps = max(steps, STEPS_WORTH_A_GRAPH)
        if not small:
            torch.cuda.empty_cache()
    return rate


def main() -> None:
    """Measure everybody in turn and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cpu only tries the script: small batches, few steps")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--cudnn-benchmark", action="store_true", help="let cuDNN try its algorithms, for everybody")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    arguments = parser.parse_args()
    device = arguments.device
    small = device == "cpu"
    torch.backends.cudnn.benchmark = arguments.cudnn_benchmark
    rates: dict[str, dict[str, dict[str, list[float]]]] = {}
    for batch in [2] if small else arguments.batches:
        for _ in range(arguments.rounds):
            for kind, known in contenders(device).items():
                for name, loop in known.items():
                    rate = measure(loop, device, batch, arguments.seconds, recorded="recorded" in name, small=small)
                    rates.setdefault(str(batch), {}).setdefault(kind, {}).setdefault(name, []).append(rate)
                    print(f"batch {batch}, {kind}, {name}: {rate:,.0f} images a second", flush=True)
    results = {
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cudnn": torch.backends.cudnn.version(),
            "device": torch.cuda.get_device_name(device) if not small else "cpu",
            "cudnn_benchmark": arguments.cudnn_benchmark,
        },
        "settings": {
            "model": model_of(device),
            "shape": SHAPE,
            "inner_steps": loops.STEPS,
            "seconds": arguments.seconds,
        },
        "images_a_second": rates,
    }
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    print(table(rates))


def table(rates: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """The medians, and their ratio to version 0.1, as Markdown."""
    lines = ["| batch | training | loop | images a second | ratio |", "|---|---|---|---|---|"]
    for batch, kinds in rates.items():
        for kind, known in kinds.items():
            # the first is version 0.1; in Madry training it attacked in bfloat16 by default, `evaluate` in float32
            first = statistics.median(next(iter(known.values())))
            for name, values in known.items():
                median = statistics.median(values)
                lines.append(f"| {batch} | {kind} | {name} | {median:,.0f} | {median / first:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
