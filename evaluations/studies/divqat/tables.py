"""The tables of the DivQAT study from its JSON lines: `python -m evaluations.studies.divqat.tables [FILE]`.

Means over the seeds in the file, with their number and 95 % intervals; Markdown on standard output. The records hold
rates and not which images counted, so the intervals are those that reports have then: Student's t over the seeds.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from art_divqat.metrics.estimator import over_seeds
from art_divqat.metrics.intervals import Interval

Record = dict[str, Any]
ANSWERS = ("soft", "hard", "adjusted", "amplified")


def read(path: Path) -> list[Record]:
    """The records of a file; lines that an interruption cut off are left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def one_a_seed(records: list[Record]) -> list[Record]:
    """One record of each seed: a victim is the same for every thief of its seed."""
    return list({r["seed"]: r for r in records}.values())


def average(records: list[Record], name: str) -> Interval | None:
    """Mean of one metric over the records, one a seed, and its interval; None for no records."""
    return Interval(*over_seeds([record[name] for record in records], (0.0, 1.0))[:3]) if records else None  # type: ignore[arg-type]


def shown(value: Interval | None) -> str:
    """The mean, with the interval where there is one, or a dash.

    >>> shown(Interval(0.6, 0.352, 0.848)), shown(None)
    ('.600 (.352–.848)', '–')
    """
    if value is None:
        return "–"
    mean, low, high = (None if bound is None else f"{bound:.3f}".replace("0.", ".", 1) for bound in value)
    return f"{mean}" if low is None else f"{mean} ({low}–{high})"


def thieves_of(records: list[Record]) -> list[Interval | None]:
    """The accuracy of the thieves of one victim and pool, by the answers they use."""
    return [average([r for r in records if r["answers"] == answers], "thief_accuracy") for answers in ANSWERS]


def best_of(thieves: list[Interval | None]) -> Interval | None:
    """The thief with the highest mean."""
    return max((thief for thief in thieves if thief is not None), key=lambda thief: thief.mean, default=None)


def thieves_table(records: list[Record]) -> list[str]:
    """One row for each (victim, pool): the victim's accuracy and the thieves'; the best one in the last column but one.

    >>> lines = thieves_table([{"variant": "qat", "auxiliary": "none", "pool": "p", "heuristic": False, "seed": 0,
    ...     "answers": "soft", "victim_accuracy": 0.9, "thief_accuracy": 0.5, "query_top_class_share": 1.0}])
    >>> lines[-1]
    '| qat | none | p | 1 | .900 | .500 | – | – | – | .500 | 1.000 |'
    """
    rows: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        name = record["variant"] + (" + heuristic" if record["heuristic"] else "")
        rows[name, record["auxiliary"], record["pool"]].append(record)
    lines = [
        "| victim | auxiliary | pool | seeds | victim | thief soft | hard | adjusted | amplified | best | top class |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, group in rows.items():
        thieves = thieves_of(group)
        victims = one_a_seed(group)
        ends = average(victims, "victim_accuracy"), average(victims, "query_top_class_share")
        best = best_of(thieves)
        cells = [str(len(victims)), *map(shown, (ends[0], *thieves, best and Interval(best.mean, None, None)))]
        share = shown(ends[1] and Interval(ends[1].mean, None, None))
        lines.append(f"| {' | '.join((*key, *cells, share))} |")
    return lines


def matrix_table(records: list[Record]) -> list[str]:
    """The best thief's mean accuracy: a row for each auxiliary set, a column for each of the attacker's pools.

    >>> lines = matrix_table([{"variant": "divqat", "auxiliary": "noise", "pool": "p", "seed": 0, "answers": "soft",
    ...     "victim_accuracy": 0.9, "thief_accuracy": 0.5}])
    >>> lines[-1]
    '| noise | .900 | .500 |'
    """
    pools = list(dict.fromkeys(r["pool"] for r in records))
    lines = [f"| auxiliary | victim | {' | '.join(pools)} |", "|---" * (len(pools) + 2) + "|"]
    for variant, auxiliary in dict.fromkeys((r["variant"], r["auxiliary"]) for r in records):
        row = [r for r in records if (r["variant"], r["auxiliary"]) == (variant, auxiliary)]
        found = [average(one_a_seed(row), "victim_accuracy")]
        found += [best_of(thieves_of([r for r in row if r["pool"] == pool])) for pool in pools]
        name = {"qat": "plain QAT", "divqat": auxiliary}.get(variant, f"{auxiliary}, {variant}")
        lines.append(f"| {name} | {' | '.join(shown(v and Interval(v.mean, None, None)) for v in found)} |")
    return lines


def stacking_lines(records: list[Record]) -> list[str]:
    """What the heuristic perturbation takes from the best thief, on each victim: the paper's claim, as a comparison."""
    lines = []
    for variant in ("qat", "divqat"):
        alone, stacked = (
            best_of(thieves_of([r for r in records if r["variant"] == variant and r["heuristic"] is heuristic]))
            for heuristic in (False, True)
        )
        if alone is not None and stacked is not None:
            change = over_seeds(_paired_changes([r for r in records if r["variant"] == variant]), (-1.0, 1.0))
            ends = "" if change.low is None else f" ({change.low:+.3f} to {change.high:+.3f})"
            lines.append(
                f"- {variant}: best thief {shown(alone)} without the heuristic, {shown(stacked)} with it: "
                f"{change.mean:+.3f}{ends}"
            )
    return lines


def _paired_changes(records: list[Record]) -> list[float]:
    """In each seed, the thief that is best with the heuristic less the one that is best without it."""
    best: list[dict[int, float]] = []
    for heuristic in (True, False):
        rows = [r for r in records if r["heuristic"] is heuristic]
        means = {a: average([r for r in rows if r["answers"] == a], "thief_accuracy") for a in ANSWERS}
        chosen = max((a for a in ANSWERS if means[a] is not None), key=lambda a: means[a].mean)  # type: ignore[union-attr]
        best.append({r["seed"]: r["thief_accuracy"] for r in rows if r["answers"] == chosen})
    stacked, alone = best
    return [stacked[seed] - alone[seed] for seed in stacked if seed in alone]


def distinct_lines(records: list[Record]) -> list[str]:
    """How many different answers the queries got: what the int8 network's rounding leaves to amplify."""
    return [
        f"- {variant}: {count.mean:.0f} different answers to {records[0]['queries']} queries"
        for variant in dict.fromkeys(r["variant"] for r in records)
        if (count := average([r for r in records if r["variant"] == variant], "distinct_answers")) is not None
    ]


def given_table(records: list[Record]) -> list[str]:
    """What the auxiliary images do to the answers that the queries of each pool get, and to the thieves.

    >>> lines = given_table([{"variant": "qat", "auxiliary": "none", "pool": "p", "seed": 0, "answers": "soft",
    ...     "victim_accuracy": 0.9, "distinct_answers": 7, "query_mean_top_probability": 0.5, "thief_accuracy": 0.25}])
    >>> lines[-1]
    '| plain QAT | p | .900 | 7 | .500 | .250 | – |'
    """
    lines = [
        "| auxiliary | pool | victim | different answers | top probability | thief soft | adjusted |",
        "|---" * 7 + "|",
    ]
    for variant, auxiliary, pool in dict.fromkeys((r["variant"], r["auxiliary"], r["pool"]) for r in records):
        row = [r for r in records if (r["variant"], r["auxiliary"], r["pool"]) == (variant, auxiliary, pool)]
        once, thieves = one_a_seed(row), thieves_of(row)
        count = average(once, "distinct_answers")
        assert count is not None
        ends = [shown(average(once, "victim_accuracy")), f"{count.mean:,.0f}"]
        ends += map(shown, (average(once, "query_mean_top_probability"), thieves[0], thieves[2]))
        lines.append(f"| {'plain QAT' if variant == 'qat' else auxiliary} | {pool} | {' | '.join(ends)} |")
    return lines


def teacher_lines(records: list[Record]) -> list[str]:
    """Accuracy of the int8 networks beside that of the full-precision network that they were trained on from.

    >>> teacher_lines([{"variant": "qat", "seed": 0, "victim_accuracy": 0.9, "teacher_accuracy": 0.875}])
    ['- qat: int8 .900, full precision .875']
    """
    lines = []
    for variant in ("qat", "divqat"):
        victims = one_a_seed([r for r in records if r["variant"] == variant])
        int8, full = average(victims, "victim_accuracy"), average(victims, "teacher_accuracy")
        if int8 is not None and full is not None:
            lines.append(f"- {variant}: int8 {shown(int8)}, full precision {shown(full)}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).parent / "results" / "cells.jsonl")
    records = read(parser.parse_args(arguments).file)
    for size, dataset, study in sorted({(r["size"], r["dataset"], r["study"]) for r in records}):
        group = [r for r in records if (r["size"], r["dataset"], r["study"]) == (size, dataset, study)]
        print(f"\n### {dataset}, {study} ({size})\n")
        if study == "matrix":
            print("\n".join([*matrix_table(group), ""]))
        print("\n".join(given_table(group) if study == "given" else thieves_table(group)))
        if study == "variants":
            print("\n".join(["", *teacher_lines(group)]))
        if study == "stacked":
            print("\n".join(["", *stacking_lines(group)]))
        if study == "amplified":
            print("\n".join(["", *distinct_lines(group)]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
