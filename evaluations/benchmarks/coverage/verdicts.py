"""How often verdicts are false where there is no difference: `python evaluations/benchmarks/coverage/verdicts.py`.

Thieves are simulated as in run.py beside it. Two questions: does a run that adds seeds until its leading comparison is
decided (`--seeds auto`) decide falsely more often than 5 %, and does a family of verdicts hold a false one more often.
Writes verdicts.json and verdicts.md; two minutes of one core.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from art_divqat.metrics.estimator import differences, ratios
from art_divqat.metrics.verdicts import SIGNIFICANCE, holm
from art_divqat.plan.looks import looks
from evaluations.benchmarks.coverage.run import Case, hits, rounded

HERE = Path(__file__).resolve().parent
IMAGES, RATE = 200, 0.8
SPREADS, CORRELATIONS, MOST = (0.0, 0.03, 0.1), (0.0, 0.9), (8, 20, 50)
DEFENCES, ANSWERS = 8, 2
_CHUNK = 50


def sequential(spread: float, correlation: float, most: int, experiments: int) -> dict[str, float]:
    """How often seeds are added until there is a verdict, and it is false: both victims are equally easy to steal.

    There are two attackers; the leading comparison is that of the better one, and corrected for both, as in a report.
    `uncorrected` gives every look the whole level.
    """
    rng = np.random.default_rng([most, round(1000 * spread), round(10 * correlation)])
    case = Case(most, IMAGES, RATE, spread, correlation)
    schedule = looks(most)
    decided = {"split": np.zeros(experiments, bool), "uncorrected": np.zeros(experiments, bool)}
    seeds = np.full(experiments, most)
    for start in range(0, experiments, _CHUNK):
        number = min(_CHUNK, experiments - start)
        # (experiments, attackers, victims, seeds, images)
        sets = np.stack([hits(rng, case, (RATE, RATE), number) for _ in range(ANSWERS)], axis=1)
        for look in reversed(schedule):
            seen = sets[:, :, :, :look]
            effects = ratios(seen.reshape(number * ANSWERS, 2, look, IMAGES))
            best = seen[:, :, 0].mean(axis=(2, 3)).argmax(axis=1)
            for n in range(number):
                corrected = holm([effect.p_value for effect in effects[n * ANSWERS : (n + 1) * ANSWERS]])[best[n]]
                p_value = 1.0 if corrected is None else corrected
                decided["uncorrected"][start + n] |= p_value < SIGNIFICANCE
                if p_value < SIGNIFICANCE / len(schedule):
                    decided["split"][start + n] = True
                    seeds[start + n] = look
    return {"seeds": float(seeds.mean()), **{name: float(each.mean()) for name, each in decided.items()}}


def families(spread: float, correlation: float, experiments: int, seeds: int = 3) -> dict[str, float]:
    """How often some verdict is false, of eight defences that do nothing against two attackers.

    `one family` is what reports have. `a family a defence` would correct each defence for its two attackers alone;
    `its best` is how often the defence that leaves its best attacker the least, which reports name, has a false one.
    """
    rng = np.random.default_rng([DEFENCES, round(1000 * spread), round(10 * correlation)])
    case = Case(seeds, IMAGES, RATE, spread, correlation)
    found: dict[str, list[bool]] = {}
    for _ in range(experiments):
        (sets,) = hits(rng, case, (RATE,) * (ANSWERS * (DEFENCES + 1)), 1)
        bare, defended = sets[:ANSWERS], sets[ANSWERS:].reshape(DEFENCES, ANSWERS, seeds, IMAGES)
        pairs = np.stack([defended, np.broadcast_to(bare, defended.shape)], axis=2).reshape(-1, 2, seeds, IMAGES)
        values = [effect.p_value for effect in differences(pairs)]
        apart = [holm(values[n : n + ANSWERS]) for n in range(0, len(values), ANSWERS)]
        named = int(defended.mean(axis=(2, 3)).max(axis=1).argmin())
        for name, tested in (
            ("one family", holm(values)),
            ("a family a defence", [p for each in apart for p in each]),
            ("its best", apart[named]),
            ("uncorrected", values),
        ):
            found.setdefault(name, []).append(any(p is not None and p < SIGNIFICANCE for p in tested))
    return {name: float(np.mean(each)) for name, each in found.items()}


def table(written: dict[str, list[dict[str, Any]]]) -> str:
    """The results as Markdown."""
    lines = [
        "Made by `python evaluations/benchmarks/coverage/verdicts.py`: the share of runs with a false verdict, where",
        f"there is no difference; at most .05 is wanted. Rate {RATE:g}, {IMAGES} test images.",
        "",
        "`--seeds auto`: seeds are added until the leading comparison is decided.",
        "",
        "| most seeds | looks | spread | correlation | level split among the looks | the whole level at each |",
        "|---|---|---|---|---|---|",
    ]
    for row in written["sequential"]:
        lines.append(
            f"| {row['most']} | {len(looks(row['most']))} | {row['spread']:g} | {row['correlation']:g} | "
            f"{row['split']:.3f} | {row['uncorrected']:.3f} |"
        )
    lines += [
        "",
        f"Families: {DEFENCES} defences that do nothing, two attackers. *A family a defence* corrects",
        "each defence alone; *the named one* is then the defence that leaves its best attacker the least.",
        "",
        "| seeds | spread | correlation | one family | a family a defence | of these the named one | uncorrected |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in written["families"]:
        names = ("one family", "a family a defence", "its best", "uncorrected")
        where = f"{row['seeds']} | {row['spread']:g} | {row['correlation']:g}"
        lines.append(f"| {where} | {' | '.join(f'{row[name]:.3f}' for name in names)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Simulate every case and write the tables."""
    added, apart = [], []
    for spread, correlation in itertools.product(SPREADS, CORRELATIONS):
        where = {"spread": spread, "correlation": correlation}
        for most in MOST:
            experiments = 1_000 if most <= 20 else 400
            added.append({**where, "most": most, "experiments": experiments}
                         | sequential(spread, correlation, most, experiments))  # fmt: skip
            print(added[-1], flush=True)
        for seeds in (3, 5):
            apart.append({**where, "seeds": seeds, "experiments": 1_000} | families(spread, correlation, 1_000, seeds))
            print(apart[-1], flush=True)
    written = rounded({"sequential": added, "families": apart})
    (HERE / "verdicts.json").write_text(json.dumps(written, indent=1) + "\n")
    (HERE / "verdicts.md").write_text(table(written))


if __name__ == "__main__":
    main()
