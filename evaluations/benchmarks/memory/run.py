"""Peak resident memory of an evaluation of 224×224 images: data, victim, query pool, theft and measurement.

Victim and thief are one strided convolution and a linear layer, so that what counts is what images take; the passes of
a deep network over a batch come on top. Each size runs in a process of its own, whose peak the system tells.

    python evaluations/benchmarks/memory/run.py [--sizes 1000 10000 50000]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from torch import nn

SIDE, CLASSES, TRAINING, TEST = 224, 10, 10_000, 1_000


def network() -> nn.Module:
    """One stride of 16 pixels, and the mean of what it finds."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 16, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES)
    )


def write_archive(path: Path) -> None:
    """Training and test images as uint8, written a few at a time."""
    import zipfile

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, zipfile.ZipFile(path, "w") as archive:
        for part, count in (("train", TRAINING), ("test", TEST)):
            x = open_memmap(f"{folder}/x.npy", "w+", np.uint8, (count, SIDE, SIDE, 3))
            y = np.arange(count) % CLASSES
            for row in range(count):
                x[row] = rng.integers(0, 64, (SIDE, SIDE, 3), dtype=np.uint8) + 16 * y[row]
            x.flush()
            np.save(f"{folder}/y.npy", y)
            for name in "xy":
                archive.write(f"{folder}/{name}.npy", f"{name}_{part}.npy")


def measure(archive: str, pool: str, queries: int) -> dict[str, float]:
    """Steal a victim once, in this process."""
    import torch

    from art_divqat.attacks.extraction import KnockoffNets
    from art_divqat.data import load_dataset, load_pool
    from art_divqat.data.copies import shared_part
    from art_divqat.data.stored import answers_to
    from art_divqat.defences.postprocessor import Softmax
    from art_divqat.estimators import MeteredClassifier, QueryLedger, RecipeClassifier, TrainingRecipe

    torch.set_num_threads(1)
    seconds = {}

    def lap(what: str, start: float) -> float:
        seconds[what] = round(time.perf_counter() - start, 1)
        return time.perf_counter()

    now = time.perf_counter()
    data = load_dataset(f"npz:{archive}")
    now = lap("data", now)
    images = load_pool(pool, data)
    shared_part(images.x, data.x_train)
    now = lap("pool", now)
    shape, recipe = data.input_shape, TrainingRecipe(epochs=1)
    victim = RecipeClassifier(network(), shape, CLASSES, recipe, postprocessing_defences=Softmax())
    victim.fit(data.x_train, data.y_train)
    now = lap("victim", now)
    metered = MeteredClassifier(victim, QueryLedger(queries))
    attack = KnockoffNets(metered, nb_stolen=queries, nb_epochs=1)
    thief = attack.extract(images.x, thieved_classifier=RecipeClassifier(network(), shape, CLASSES, recipe))
    now = lap("theft", now)
    for model in (victim, thief):
        answers_to(model.predict, data.x_test)
    lap("measurement", now)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"queries": queries, "peak_gib": round(peak, 2), **seconds}


def main() -> None:
    """Measure every size, print, and write results.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    parser.add_argument("--pool", default="noise")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(given.child[0], given.pool, int(given.child[1]))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "images.npz"
        write_archive(archive)
        environment = {**os.environ, "XDG_CACHE_HOME": folder}
        for size in given.sizes:
            command = [sys.executable, __file__, "--pool", given.pool, "--child", str(archive), str(size)]
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    result = {"training_images": TRAINING, "side": SIDE, "pool": given.pool, "python": platform.python_version()}
    text = json.dumps({**result, "rows": rows}, indent=2)
    (Path(__file__).parent / "results.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
