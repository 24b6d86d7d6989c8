"""Two questions of speed, on scikit-learn's digits, one thread: is the adaptive KnockoffNets at least four times faster
than ART's at 1,000 queries with a thief no worse, and is the thief's training loop at least as fast as ART's `fit`?

"ART" is ART throughout: its attack, its classifier as victim and thief, torch's AdamW as torch builds it. A second case
gives ART's attack our victim and our fused AdamW; what is left is the attack itself and its training loop.

Usage: python evaluations/benchmarks/attack-speed/run.py [--seeds 3] [--threads 1 2]

Writes results.json beside this file, where what was found with another number of threads stays.
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

import art
import numpy as np
import torch
from art.attacks.extraction import KnockoffNets as ArtKnockoffNets
from art.estimators.classification import PyTorchClassifier
from sklearn.datasets import load_digits
from torch import nn

from art_divqat._rng import isolated_random_state
from art_divqat.attacks.extraction import KnockoffNets
from art_divqat.defences.postprocessor import Softmax
from art_divqat.estimators import MeteredClassifier, QueryLedger, RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model

SHAPE, QUERIES, EPOCHS, BATCH = (1, 8, 8), 1000, 10, 64
TRAIN, POOL, TEST = slice(0, 400), slice(400, 1497), slice(1497, 1797)


def data() -> tuple[Any, Any]:
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.images))
    return (bunch.images[order] / 16).astype(np.float32)[:, None], bunch.target[order].astype(np.int64)


def recipe_thief(model: str, seed: int) -> RecipeClassifier:
    recipe = TrainingRecipe(epochs=EPOCHS, batch_size=BATCH, schedule="constant")
    return RecipeClassifier(build_model(model, SHAPE, 10, seed=seed), SHAPE, 10, recipe, seed=seed)


def art_classifier(network: nn.Module, optimizer: Any = None, **options: Any) -> PyTorchClassifier:
    return PyTorchClassifier(
        network, nn.CrossEntropyLoss(), SHAPE, 10, optimizer, clip_values=(0, 1), device_type="cpu", **options
    )


def art_thief(model: str, seed: int, fused: bool = True) -> PyTorchClassifier:
    """An ART thief with our recipe's AdamW: fused as ours is, or as torch builds it unless told otherwise."""
    network, recipe = build_model(model, SHAPE, 10, seed=seed), TrainingRecipe()
    if fused:
        return art_classifier(network, recipe.build_optimizer(network))
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    return art_classifier(network, optimizer)


def score(thief: Any, x: Any, y: Any, served: Any) -> dict[str, float]:
    guess = thief.predict(x).argmax(1)
    return {"thief_accuracy": float((guess == y).mean()), "agreement": float((guess == served).mean())}


def cases(model: str, victim: Any, x: Any, y: Any, seed: int) -> dict[str, Callable[[], Any]]:
    """What is timed, by name; each returns a trained thief."""
    shared = {"batch_size_fit": BATCH, "nb_epochs": EPOCHS, "nb_stolen": QUERIES, "verbose": False}
    adaptive = {"sampling_strategy": "adaptive", **shared}

    def metered() -> MeteredClassifier:
        return MeteredClassifier(victim, QueryLedger(QUERIES))

    def theirs(reward: str) -> Any:
        whole = art_classifier(victim.model, postprocessing_defences=[Softmax()])
        attack = ArtKnockoffNets(whole, reward=reward, **adaptive)
        return attack.extract(x[POOL], y[POOL], thieved_classifier=art_thief(model, seed, fused=False))

    def helped(reward: str) -> Any:
        attack = ArtKnockoffNets(metered(), reward=reward, **adaptive)
        return attack.extract(x[POOL], y[POOL], thieved_classifier=art_thief(model, seed))

    def ours(reward: str, **options: Any) -> Any:
        attack = KnockoffNets(metered(), reward=reward, seed=seed, **options, **adaptive)
        return attack.extract(x[POOL], y[POOL], thieved_classifier=recipe_thief(model, seed))

    def random() -> Any:
        return KnockoffNets(metered(), seed=seed, **shared).extract(
            x[POOL], thieved_classifier=recipe_thief(model, seed)
        )

    def fit(thief: Any) -> Any:
        images = x[POOL][:QUERIES]
        thief.fit(images, victim.predict(images), batch_size=BATCH, nb_epochs=EPOCHS)
        return thief

    work: dict[str, Callable[[], Any]] = {}
    for reward in ("all", "cert"):
        work[f"adaptive {reward}: ART"] = lambda r=reward: theirs(r)
        work[f"adaptive {reward}: ART's attack, our victim and optimiser"] = lambda r=reward: helped(r)
        work[f"adaptive {reward}: ours"] = lambda r=reward: ours(r)
        work[f"adaptive {reward}: ours, one at a time"] = lambda r=reward: ours(r, step=1)
    work["random: ours"] = random
    work["fit: ART"] = lambda: fit(art_thief(model, seed))
    work["fit: ours"] = lambda: fit(recipe_thief(model, seed))
    return work


def timed(work: Callable[[], Any], seed: int) -> tuple[float, Any, int]:
    """Seconds and thief of the first attempt that ends, and which it was: ART's `all` may divide by a zero variance."""
    for attempt in itertools.count(1):
        with isolated_random_state("benchmark", seed, attempt):
            start = time.perf_counter()
            try:
                thief = work()
            except ValueError as error:
                if "contain NaN" not in str(error) or attempt == 5:
                    raise
                continue
            return time.perf_counter() - start, thief, attempt
    raise AssertionError


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the seeds of every case, and how many times as fast as ART's it was."""
    summary = []
    for (threads, model, name), group in itertools.groupby(
        sorted(rows, key=lambda r: (r["threads"], r["thief"], r["case"])),
        key=lambda r: (r["threads"], r["thief"], r["case"]),
    ):
        members = list(group)
        means = {
            key: statistics.mean(member[key] for member in members)
            for key in ("seconds", "thief_accuracy", "agreement")
        }
        summary.append({"threads": threads, "thief": model, "case": name, **means})
    art_seconds = {
        (line["threads"], line["thief"], line["case"].split(":")[0]): line["seconds"]
        for line in summary
        if line["case"].endswith("ART")
    }
    for line in summary:
        reference = art_seconds.get((line["threads"], line["thief"], line["case"].split(":")[0]))
        line["speedup_over_art"] = reference / line["seconds"] if reference else None
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=[1, 2], nargs="+")
    parser.add_argument("--models", default=["small-cnn", "lenet5"], nargs="+")
    arguments = parser.parse_args()
    x, y = data()
    victim = RecipeClassifier(
        build_model("small-cnn", SHAPE, 10, seed=99),
        SHAPE,
        10,
        TrainingRecipe(epochs=15),
        postprocessing_defences=[Softmax()],
    )
    victim.fit(x[TRAIN], y[TRAIN])
    served = victim.predict(x[TEST]).argmax(1)
    rows: list[dict[str, Any]] = []
    for threads, model, seed in itertools.product(arguments.threads, arguments.models, range(arguments.seeds)):
        torch.set_num_threads(threads)
        recipe_thief(model, seed).fit(x[:128], y[:128], nb_epochs=1)  # warm up
        for name, work in cases(model, victim, x, y, seed).items():
            seconds, thief, attempts = timed(work, seed)
            scores = score(thief, x[TEST], y[TEST], served)
            rows.append(
                {
                    "threads": threads,
                    "thief": model,
                    "case": name,
                    "seed": seed,
                    "attempts": attempts,
                    "seconds": seconds,
                    **scores,
                }
            )

    path = Path(__file__).with_name("results.json")
    if path.exists():
        rows += [row for row in json.loads(path.read_text())["rows"] if row["threads"] not in arguments.threads]
    rows.sort(key=lambda row: row["threads"])
    summary = summarise(rows)
    for line in summary:
        print(
            f"{line['threads']} thread(s)  {line['thief']:9s}  {line['case']:52s} {line['seconds']:6.2f} s  "
            f"accuracy {line['thief_accuracy']:.3f}  speed-up {line['speedup_over_art'] or float('nan'):.1f}"
        )
    result = {
        "queries": QUERIES,
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "victim_accuracy": float((served == y[TEST]).mean()),
        "environment": {"python": platform.python_version(), "torch": torch.__version__, "art": art.__version__},
        "summary": summary,
        "rows": rows,
    }
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
