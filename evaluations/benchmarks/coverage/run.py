"""How often the 95 % intervals hold the truth: `python evaluations/benchmarks/coverage/run.py`.

Thieves are simulated: a latent normal value of each seed, each image and each cell decides what is hit, so that rates
differ between seeds by a given standard deviation. The estimator of `art_divqat/metrics/estimator.py` sees only hits.
Writes results.json and table.md beside this file; everything follows from the seeds of each case.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from art_divqat.metrics.curves import queries_to_reach
from art_divqat.metrics.estimator import Effect, best_of, differences, query_fraction, rates, ratios
from art_divqat.metrics.intervals import Interval
from art_divqat.metrics.verdicts import SIGNIFICANCE

HERE = Path(__file__).resolve().parent
SEEDS, IMAGES = (3, 5, 10), (200, 1_000, 10_000)
# the thief, its counterpart, and a curve over three budgets: near one half, high, and near one
RATES = {0.5: (0.45, (0.35, 0.47, 0.53)), 0.9: (0.85, (0.7, 0.86, 0.92)), 0.97: (0.95, (0.85, 0.94, 0.97))}
SPREADS, CORRELATIONS = (0.0, 0.01, 0.05, 0.1), (0.0, 0.9)
BUDGETS = (250, 500, 1_000)
LOWEST, HIGHEST = 0.93, 0.97
# how much images differ, in units of what cells of one seed and one image differ by themselves
_OF_IMAGES = 1.0
_CHUNK = 1_000_000
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
Rows = NDArray[np.float64]


class Case(NamedTuple):
    """One kind of experiment: so many seeds and images, a rate, how seeds differ, how alike the two sides do."""

    seeds: int
    images: int
    rate: float
    spread: float
    correlation: float


def cases() -> list[Case]:
    """Every case; a rate of .97 cannot differ by .1."""
    every = itertools.starmap(Case, itertools.product(SEEDS, IMAGES, RATES, SPREADS, CORRELATIONS))
    return [case for case in every if case.rate < 0.95 or case.spread < 0.1]


def latent(rate: float, spread: float) -> tuple[float, float]:
    """The mean of the latent value, and its standard deviation between seeds, that give a rate and a spread."""

    def of(deviation: float) -> tuple[float, Rows]:
        centre = special.ndtri(rate) * np.sqrt(1 + _OF_IMAGES**2 + deviation**2)
        return centre, special.ndtr((centre + deviation * _NODES) / np.sqrt(1 + _OF_IMAGES**2))

    def excess(deviation: float) -> float:
        variance = _WEIGHTS @ (of(deviation)[1] - rate) ** 2 / _WEIGHTS.sum()
        return float(np.sqrt(variance) - spread)

    deviation = optimize.brentq(excess, 1e-6, 20.0) if spread else 0.0
    return float(of(deviation)[0]), deviation


def hits(rng: np.random.Generator, case: Case, wanted: tuple[float, ...], number: int) -> NDArray[np.bool_]:
    """(experiments, sets, seeds, images): sets of the wanted rates, on the same images and with correlated seeds."""
    shape = (number, len(wanted), case.seeds, case.images)
    common, own = rng.standard_normal((number, 1, case.seeds, 1)), rng.standard_normal((*shape[:3], 1))
    of_seeds = np.sqrt(case.correlation) * common + np.sqrt(1 - case.correlation) * own
    centres, deviations = (
        np.array(each).reshape(1, -1, 1, 1) for each in zip(*(latent(r, case.spread) for r in wanted), strict=True)
    )
    of_images = _OF_IMAGES * rng.standard_normal((number, 1, 1, case.images), dtype=np.float32)
    needed = -(centres + deviations * of_seeds).astype(np.float32)
    return rng.standard_normal(shape, dtype=np.float32) + of_images > needed


def covers(case: Case, experiments: int) -> dict[str, float]:
    """How often the interval of each kind of estimate holds the truth."""
    rng = np.random.default_rng([case.seeds, case.images, *(round(1000 * each) for each in case[2:])])
    other, curve = RATES[case.rate]
    held: dict[str, list[bool]] = {}
    fraction = queries_to_reach(other, BUDGETS, curve) / BUDGETS[-1]  # type: ignore[operator]
    step = max(1, _CHUNK // (case.seeds * case.images))
    for start in range(0, experiments, step):
        number = min(step, experiments - start)
        pairs = hits(rng, case, (case.rate, other), number)
        found = {
            "rate": (case.rate, rates(pairs[:, 0])),
            "difference": (case.rate - other, differences(pairs)),
            "ratio": (case.rate / other, ratios(pairs)),
        }
        # five times as slow as the others, and as sure with a quarter as many
        sets = hits(rng, case, (*curve, other), -(-number // 4))
        found["query fraction"] = (fraction, [query_fraction(each[:-1], each[-1], BUDGETS) for each in sets])
        for kind, (truth, intervals) in found.items():
            held.setdefault(kind, []).extend(holds(truth, each) for each in intervals)
    return {kind: float(np.mean(each)) for kind, each in held.items()}


def holds(truth: float, found: Interval | Effect) -> bool:
    """Whether an interval holds the truth; where a rate is said never to be reached, it does not."""
    if found.mean is None:
        return isinstance(found, Effect) and found.p_value is not None and found.p_value >= SIGNIFICANCE
    return (found.low is None or found.low <= truth + 1e-12) and (found.high is None or found.high >= truth - 1e-12)


def bias(case: Case, attackers: int, experiments: int) -> dict[str, float]:
    """How far the largest of equally good attackers seems to be above the truth, uncorrected and corrected."""
    rng = np.random.default_rng([attackers, case.seeds, case.images, round(1000 * case.spread)])
    largest, corrected, held = [], [], []
    for _ in range(experiments):
        (sets,) = hits(rng, case, (case.rate,) * attackers, 1)
        largest.append(sets.mean(axis=(1, 2)).max() - case.rate)
        interval = best_of(sets)
        corrected.append(interval.mean - case.rate)
        held.append(holds(case.rate, interval))
    error = np.std(corrected) / np.sqrt(experiments)
    return {"largest": np.mean(largest), "corrected": np.mean(corrected), "error": error, "cover": np.mean(held)}


def experiments_of(case: Case) -> int:
    """As many as tell a cover of .95 to ±.005 (200 images), ±.007 or ±.013 (10,000): one standard error."""
    return {200: 2_000, 1_000: 1_000}.get(case.images, 300)


def table(written: dict[str, list[dict[str, Any]]]) -> str:
    """The results as Markdown: for each estimate the mean cover and the least and most of any case; then the bias."""
    lines = ["| estimate | seeds | cases | mean cover | least | in the case | most |", "|---|---|---|---|---|---|---|"]
    for kind, seeds in itertools.product(written["cover"][0]["cover"], SEEDS):
        rows = [row for row in written["cover"] if row["seeds"] == seeds]
        covers = [row["cover"][kind] for row in rows]
        worst = rows[int(np.argmin(covers))]
        case = f"rate {worst['rate']:g}, spread {worst['spread']:g}, {worst['images']:,} images"
        lines.append(
            f"| {kind} | {seeds} | {len(rows)} | {np.mean(covers):.3f} | {min(covers):.3f} | {case} | {max(covers):.3f} |"  # noqa: E501
        )
    lines += [
        "",
        "| attackers | seeds | spread | largest mean | corrected | ± | cover |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in written["best_attacker"]:
        lines.append(
            f"| {row['attackers']} | {row['seeds']} | {row['spread']:g} | {100 * row['largest']:+.2f} points | "
            f"{100 * row['corrected']:+.2f} points | {100 * row['error']:.2f} | {row['cover']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def rounded(found: Any) -> Any:
    """The same with five digits."""
    if isinstance(found, dict):
        return {name: rounded(each) for name, each in found.items()}
    if isinstance(found, list):
        return [rounded(each) for each in found]
    return round(float(found), 5) if isinstance(found, float | np.floating) else found


def main() -> None:
    """Simulate every case and write the tables."""
    began = time.perf_counter()
    found = []
    for case in cases():
        number = experiments_of(case)
        found.append({**case._asdict(), "experiments": number, "cover": covers(case, number)})
        print(f"{time.perf_counter() - began:.0f} s", case, found[-1]["cover"], flush=True)
    best = []
    for seeds, spread, attackers in itertools.product((1, 3, 5), (0.0, 0.05), (4, 12)):
        case = Case(seeds, 500, 0.9, spread, 0.0)
        best.append({**case._asdict(), "attackers": attackers, **bias(case, attackers, 1_500)})
        print(f"{time.perf_counter() - began:.0f} s", best[-1], flush=True)
    written = rounded({"cover": found, "best_attacker": best})
    (HERE / "results.json").write_text(json.dumps(written, indent=1) + "\n")
    (HERE / "table.md").write_text(table(written))


if __name__ == "__main__":
    main()
