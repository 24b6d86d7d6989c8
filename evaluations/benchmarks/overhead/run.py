"""What the runner costs over the bare ART calls it makes: seconds of a cell over seconds of the same theft by hand.

By hand: ART's KnockoffNets on the victim behind ART's black box with Softmax, a thief of the same recipe, and the
predictions that accuracy and agreement need. The cell adds the meter, the checks, all other metrics and the latency.
Both sides run alternately in one process, one torch thread; robustness is measured by neither.

    python evaluations/benchmarks/overhead/run.py [--budget 1000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from art.attacks.extraction import KnockoffNets

from art_divqat._rng import derive_seed, isolated_random_state
from art_divqat.audit.bench import Bench
from art_divqat.audit.cell import run_cell
from art_divqat.plan.cells import plan_cells
from art_divqat.plan.config import make_config
from art_divqat.plan.presets import resolve
from art_divqat.victims.serving import answering
from art_divqat.victims.specs import VictimSpec


def by_hand(bench: Bench, budget: int, seed: int) -> float:
    """Seconds of the bare calls."""
    victim = bench.victim(VictimSpec("standard"), seed)
    start = time.perf_counter()
    thief = bench.fresh_thief(seed)
    recipe = thief.recipe
    attack = KnockoffNets(
        answering(victim),
        batch_size_fit=recipe.batch_size,
        batch_size_query=512,
        nb_epochs=recipe.epochs,
        nb_stolen=budget,
        use_probability=True,
        verbose=False,
    )
    with isolated_random_state("attack", derive_seed("attack", seed)):
        thief = attack.extract(bench.pool.x, thieved_classifier=thief)
    x, y = bench.dataset.x_test, bench.dataset.y_test
    stolen, served = thief.predict(x).argmax(axis=1), answering(victim).predict(x).argmax(axis=1)
    _ = np.mean(stolen == served), np.mean(stolen == y)
    return time.perf_counter() - start


def main() -> None:
    """Measure, print, and write results.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = resolve(
        make_config(
            {"seeds": 1, "budgets": [options.budget], "answers": ["soft"], "evasion": {"images": 0}, "device": "cpu"}
        )
    )
    (cell,) = plan_cells(config)
    with tempfile.TemporaryDirectory() as store:
        bench = Bench(config, Path(store))
        run_cell(cell, bench)
        by_hand(bench, options.budget, cell.seed)
        rounds = []
        for _ in range(options.rounds):
            start = time.perf_counter()
            run_cell(cell, bench)
            rounds.append((time.perf_counter() - start, by_hand(bench, options.budget, cell.seed)))
    result = {
        "budget": options.budget,
        "cell_seconds": [round(ours, 4) for ours, _ in rounds],
        "by_hand_seconds": [round(bare, 4) for _, bare in rounds],
        "overhead": round(statistics.median(ours / bare for ours, bare in rounds) - 1, 4),
    }
    print(json.dumps(result, indent=2))
    (Path(__file__).parent / f"results-{options.budget}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
