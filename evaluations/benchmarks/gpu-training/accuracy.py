"""ResNet-18 on CIFAR-10 by a recipe as people write them: accuracy on the test images, and seconds.

    python evaluations/benchmarks/gpu-training/accuracy.py --data ARCHIVE --epochs 30 --out FILE

ARCHIVE is an .npz of x_train, y_train, x_test and y_test, as evaluations/studies/divqat/cifar10/prepare.py makes it.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from art_divqat.data.archives import read_archive
from art_divqat.data.raw import to_float
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model

SHAPE, CLASSES = (3, 32, 32), 10


def main() -> None:
    """Read, train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=0.4)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--held-out", type=int, default=0, help="so many training images are kept away and measured on too"
    )
    parser.add_argument("--limit", type=int, help="use only so many images of each kind, to try the script")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("accuracy.json"))
    arguments = parser.parse_args()
    started = time.perf_counter()
    most = slice(arguments.limit)
    raw = read_archive(arguments.data)
    assert raw.x_test is not None
    assert raw.y_test is not None
    x, y, x_test, y_test = to_float(raw.x[most]), raw.y[most], to_float(raw.x_test[most]), raw.y_test[most]
    # an archive need not be in random order
    order = np.random.default_rng(0).permutation(len(x))
    kept, held_out = order[arguments.held_out :], order[: arguments.held_out]
    x, y, x_held_out, y_held_out = x[kept], y[kept], x[held_out], y[held_out]
    reading = time.perf_counter() - started
    print(f"{len(x)} and {len(x_test)} images read in {reading:.1f} s", flush=True)
    recipe = TrainingRecipe(
        epochs=arguments.epochs,
        batch_size=arguments.batch,
        optimizer="sgd",
        learning_rate=arguments.rate,
        weight_decay=5e-4,
        augmentation="crop-flip",
        warm_up=0.2,
        label_smoothing=0.1,
        precision=arguments.precision,
        cuda_graphs=True,
    )
    runs = []
    for seed in range(arguments.seeds):
        network = build_model(arguments.model, SHAPE, CLASSES, seed=seed)
        classifier = RecipeClassifier(network, SHAPE, CLASSES, recipe, seed=seed, device=arguments.device)
        started = time.perf_counter()
        classifier.fit(x, y)
        seconds = time.perf_counter() - started
        run: dict[str, Any] = {"seed": seed, "seconds": seconds, "losses": classifier.training_losses}
        for name, images, labels in (("accuracy", x_test, y_test), ("held_out_accuracy", x_held_out, y_held_out)):
            if len(images):
                run[name] = float((classifier.predict(images).argmax(1) == labels).mean())
        runs.append(run)
        print(
            f"seed {seed}: accuracy {run['accuracy']:.4f}, of training images kept away "
            f"{run.get('held_out_accuracy', float('nan')):.4f}, after {seconds:.1f} s",
            flush=True,
        )
    is_gpu = arguments.device.startswith("cuda")
    results = {
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name(arguments.device) if is_gpu else arguments.device,
        },
        "model": arguments.model,
        "images": [len(x), len(x_test)],
        "recipe": recipe.as_dict(),
        "reading_seconds": reading,
        "runs": runs,
    }
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
