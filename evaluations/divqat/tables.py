"""The tables of the DivQAT study from its JSON lines: `python -m evaluations.divqat.tables [FILE]`.

Means over the seeds in the file, with their number; Markdown on standard output.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

Record = dict[str, Any]
ANSWERS = ("soft", "hard", "adjusted")


def read(path: Path) -> list[Record]:
    """The records of a file; lines that an interruption cut off are left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def average(records: list[Record], name: str) -> float | None:
    """Mean of one metric, or None for no records."""
    return mean(record[name] for record in records) if records else None


def shown(value: float | None) -> str:
    """Three decimals, or a dash."""
    return "–" if value is None else f"{value:.3f}"


def thieves_table(records: list[Record]) -> list[str]:
    """One row for each (victim, pool): the victim's accuracy and the thieves'; the best one in the last column.

    >>> lines = thieves_table([{"variant": "qat", "auxiliary": "none", "pool": "p", "heuristic": False, "seed": 0,
    ...     "answers": "soft", "victim_accuracy": 0.9, "thief_accuracy": 0.5, "query_top_class_share": 1.0}])
    >>> lines[-1]
    '| qat | none | p | 1 | 0.900 | 0.500 | – | – | 0.500 | 1.000 |'
    """
    rows: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        name = record["variant"] + (" + heuristic" if record["heuristic"] else "")
        rows[name, record["auxiliary"], record["pool"]].append(record)
    lines = [
        "| victim | auxiliary | pool | seeds | victim | thief soft | hard | adjusted | best | top class |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, group in rows.items():
        thieves = [average([r for r in group if r["answers"] == answers], "thief_accuracy") for answers in ANSWERS]
        best = max(value for value in thieves if value is not None)
        seeds = len({record["seed"] for record in group})
        numbers = [average(group, "victim_accuracy"), *thieves, best, average(group, "query_top_class_share")]
        lines.append(f"| {' | '.join(key)} | {seeds} | {' | '.join(map(shown, numbers))} |")
    return lines


def stacking_lines(records: list[Record]) -> list[str]:
    """What the heuristic perturbation takes from the best thief, on each victim: the paper's claim, as a comparison."""
    lines = []
    for variant in ("qat", "divqat"):
        best = {}
        for heuristic in (False, True):
            group = [r for r in records if r["variant"] == variant and r["heuristic"] is heuristic]
            means = [average([r for r in group if r["answers"] == answers], "thief_accuracy") for answers in ANSWERS]
            present = [value for value in means if value is not None]
            best[heuristic] = max(present) if present else None
        if best[False] is not None and best[True] is not None:
            lines.append(
                f"- {variant}: best thief {shown(best[False])} without the heuristic, {shown(best[True])} with it "
                f"({best[True] - best[False]:+.3f})"
            )
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).parent / "results" / "cells.jsonl")
    records = read(parser.parse_args(arguments).file)
    for size, dataset, study in sorted({(r["size"], r["dataset"], r["study"]) for r in records}):
        group = [r for r in records if (r["size"], r["dataset"], r["study"]) == (size, dataset, study)]
        print(f"\n### {dataset}, {study} ({size})\n")
        print("\n".join(thieves_table(group)))
        if study == "stacked":
            print("\n".join(["", *stacking_lines(group)]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
