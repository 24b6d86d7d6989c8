"""Run the DivQAT study: `python -m evaluations.studies.divqat.run --data-root DIR`.

Writes one JSON line for every finished cell and starts again where it stopped: cells that are in the file are not run.
The same command gives the same numbers, whatever --jobs is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from evaluations.studies.divqat.cells import run_cells
from evaluations.studies.divqat.settings import AUXILIARIES, SIZES, STUDIES, VARIANTS, Cell, cells_of

RESULTS = Path(__file__).parent / "results"
KEY = ("study", "size", "dataset", "variant", "auxiliary", "seed", "pool", "answers", "heuristic")


def key_of(cell: Cell, size: str) -> tuple[Any, ...]:
    """What identifies a cell in the file."""
    victim = cell.victim
    where = (cell.study, size, victim.dataset, victim.variant, victim.auxiliary, victim.seed)
    return (*where, cell.pool, cell.answers, cell.heuristic)


def finished(path: Path) -> set[tuple[Any, ...]]:
    """The keys of the cells in the file; a line cut off by an interruption does not count."""
    keys = set()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        keys.add(tuple(record[name] for name in KEY))
    return keys


def chosen(cells: Iterable[Cell], only: list[str], pools: list[str]) -> list[Cell]:
    """The cells whose variant or auxiliary set is in `only`, and whose pool is in `pools`; empty lists choose all."""
    return [
        cell
        for cell in cells
        if (not only or cell.victim.variant in only or cell.victim.auxiliary in only)
        and (not pools or cell.pool in pools)
    ]


def main(arguments: list[str] | None = None) -> int:
    """Parse, run what is missing, append."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data-root", type=Path, required=True, help="folder with MNIST/, FashionMNIST/ and the npz files"
    )
    parser.add_argument("--datasets", nargs="+", default=["mnist"], choices=list(AUXILIARIES))
    parser.add_argument("--studies", nargs="+", default=list(STUDIES), choices=STUDIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[], help=f"variants ({', '.join(VARIANTS)}) or auxiliary sets")
    parser.add_argument("--pools", nargs="+", default=[])
    parser.add_argument("--size", default="full", choices=list(SIZES))
    parser.add_argument("--jobs", type=int, default=1, help="victims trained at the same time, one core each")
    parser.add_argument("--output", type=Path, default=RESULTS / "cells.jsonl")
    options = parser.parse_args(arguments)

    done = finished(options.output)
    cells = [
        cell
        for seed in options.seeds
        for dataset in options.datasets
        for study in options.studies
        for cell in chosen(cells_of(study, dataset, seed), options.only, options.pools)
        if key_of(cell, options.size) not in done
    ]
    order = sorted(cells, key=lambda cell: (cell.victim.seed, cell.victim.dataset, str(cell.victim)))
    groups = [(victim, list(group)) for victim, group in groupby(order, key=lambda cell: cell.victim)]
    print(f"{len(cells)} cells of {len(groups)} victims to run, {len(done)} in {options.output}", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    if options.output.exists() and not options.output.read_bytes().endswith(b"\n"):
        with options.output.open("a", encoding="utf-8") as file:
            file.write("\n")  # close a line that an interruption cut off, or the next record is lost with it
    tasks = (delayed(run_cells)(victim, group, options.size, options.data_root) for victim, group in groups)
    for records in Parallel(n_jobs=options.jobs, return_as="generator_unordered")(tasks):
        with options.output.open("a", encoding="utf-8") as file:
            for record in records:
                file.write(json.dumps(record) + "\n")
                print(
                    f"{record['dataset']} {record['variant']} aux={record['auxiliary']} <- {record['pool']} "
                    f"{record['answers']}{' +heuristic' if record['heuristic'] else ''}: victim "
                    f"{record['victim_accuracy']:.3f} thief {record['thief_accuracy']:.3f}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
