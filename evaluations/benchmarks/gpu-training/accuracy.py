"""ResNet-18 on CIFAR-10 by a recipe as people write them: accuracy on the test images, and seconds.

    python evaluations/benchmarks/gpu-training/accuracy.py --data FOLDER --epochs 30 --out FILE

FOLDER has cifar10-train-webp.npz and cifar10-test-webp.npz: `blob`, WebP files one after the other; `off`, where each
begins, one number more than there are files; `y`, class ids.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from PIL import Image

from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model

SHAPE, CLASSES = (3, 32, 32), 10
_PART = 1000


def pictures(path: Path, most: int | None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The images of a file as float32 NCHW in [0, 1], decoded on all cores, and their class ids."""
    with np.load(path) as file:
        blob, ends, labels = file["blob"], file["off"].astype(np.int64), file["y"].astype(np.int64)[:most]
    starts = range(0, len(labels), _PART)
    decoded = Parallel(n_jobs=-1)(
        delayed(_decoded)(_files(blob, ends[start : min(start + _PART, len(labels)) + 1])) for start in starts
    )
    # divided as float32, so that every pixel is exactly k / 255
    images = np.concatenate(decoded).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(images), labels


def _files(blob: NDArray[np.uint8], ends: NDArray[np.int64]) -> list[bytes]:
    return [blob[start:end].tobytes() for start, end in itertools.pairwise(ends)]


def _decoded(files: list[bytes]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])


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
    parser.add_argument("--limit", type=int, help="use only so many images of each file, to try the script")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("accuracy.json"))
    arguments = parser.parse_args()
    started = time.perf_counter()
    x, y = pictures(arguments.data / "cifar10-train-webp.npz", arguments.limit)
    x_test, y_test = pictures(arguments.data / "cifar10-test-webp.npz", arguments.limit)
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
        accuracy = float((classifier.predict(x_test).argmax(1) == y_test).mean())
        runs.append({"seed": seed, "accuracy": accuracy, "seconds": seconds, "losses": classifier.training_losses})
        print(f"seed {seed}: accuracy {accuracy:.4f} after {seconds:.1f} s", flush=True)
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
