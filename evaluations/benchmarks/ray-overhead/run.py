"""What a Ray engine costs and saves: 200 tiny cells in this process, in worker processes, and on one and two machines.

    python evaluations/benchmarks/ray-overhead/run.py

The machines are processes of this one, each with one core of the engine's, under a head that performs nothing. Times
are of the cells alone: workers have loaded everything before, and the victim is trained. `results.json` also has
what an empty call costs, and the driver's part of it; what the driver needs for a line of the journal; and the memory
of the engine when it does nothing.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from art_divqat.audit.executor import Executor
from art_divqat.audit.progress import Silent
from art_divqat.audit.ray_pool import RayPool
from art_divqat.audit.tasks import MeasureCell, PrepareVictim
from art_divqat.plan.cells import Cell, plan_cells
from art_divqat.plan.config import ResolvedConfig, make_config
from art_divqat.plan.presets import resolve
from art_divqat.results.journal import CellRecord, Journal

CELLS = 200
EMPTY_CALLS = 500
OPTIONS: dict[str, Any] = {
    "limit": 100,
    "victims": ["standard"],
    "attacks": ["knockoff", "random"],
    "answers": ["soft"],
    "budgets": list(range(10, 60)),
    "seeds": 2,
    "model": "lenet5",
    "thief_model": "lenet5",
    "query_pool": "in-distribution",
    "victim_recipe": {"epochs": 1},
    "thief_recipe": {"epochs": 1},
    "evasion": {"images": 0},
    "device": "cpu",
}


class Engine:
    """A cluster of processes on this machine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster()
        self._add(num_cpus=0, include_dashboard=False)
        self.machine()
        self.address = self._cluster.address

    def _add(self, **settings: Any) -> None:
        for tries_left in (2, 1, 0):
            try:
                self._cluster.add_node(object_store_memory=80_000_000, include_log_monitor=False, **settings)
            except Exception:
                # where other work is under way, Ray may find that its own processes take too long to start
                if not tries_left:
                    raise
            else:
                break

    def machine(self) -> None:
        """One more machine."""
        self._add(num_cpus=1)

    def memory(self) -> dict[str, float]:
        """MiB of what runs of it, by what it is; pages that processes share count once."""
        found: dict[str, float] = {}
        for node in self._cluster.list_all_nodes():
            for kind, processes in node.all_processes.items():
                for process in processes:
                    name = "workers, none busy" if kind == "worker" else kind
                    for pid in _with_children(process.process.pid):
                        key = name if pid == process.process.pid else f"{name}: children"
                        found[key] = found.get(key, 0.0) + _pss(pid)
        return {name: round(size, 1) for name, size in sorted(found.items())}

    def end(self) -> None:
        """End every process of it."""
        self._cluster.shutdown()


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from _with_children(int(child))


def _pss(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


class Wait:
    """A task that takes long enough for every worker to have one."""

    description = "wait"

    def perform(self, bench: Any, robustness: Any, progress: Any) -> int:
        """Which process did it."""
        del bench, robustness, progress
        time.sleep(1)
        return os.getpid()


def timed_cells(config: ResolvedConfig, store: Path, cells: list[Cell], warm: int) -> tuple[float, list[CellRecord]]:
    """Seconds of the cells, and their records, after as many workers as there are have loaded everything."""
    with Executor(config, store, Silent()) as executor:
        for victim in dict.fromkeys((cell.victim, cell.seed) for cell in cells):
            list(executor.run([PrepareVictim(*victim)]))
        while len({worker for _, worker in executor.run([Wait()] * 4 * warm)}) < warm:
            pass
        list(executor.run([MeasureCell(cell) for cell in cells[: 10 * warm]]))
        began = time.perf_counter()
        records = [record for _, record in executor.run([MeasureCell(cell) for cell in cells])]
        return time.perf_counter() - began, records


def nothing() -> None:
    """An empty call."""


def timed_calls(address: str) -> dict[str, float]:
    """Milliseconds of an empty call on one machine, and of the driver's processor in it."""
    pool = RayPool(address, threads=1)
    try:
        list(pool.run([(nothing, "nothing")] * 10))
        began, processor = time.perf_counter(), time.process_time()
        list(pool.run([(nothing, "nothing")] * EMPTY_CALLS))
        return {
            "milliseconds": _milliseconds(time.perf_counter() - began, EMPTY_CALLS),
            "driver_processor_milliseconds": _milliseconds(time.process_time() - processor, EMPTY_CALLS),
        }
    finally:
        pool.end()


def timed_journal(records: list[CellRecord], folder: Path) -> float:
    """Milliseconds of a line of the journal, on the disk."""
    journal = Journal(folder / "journal.jsonl")
    journal.start({})  # type: ignore[typeddict-item]
    began = time.perf_counter()
    for record in records:
        journal.append(record)
    return _milliseconds(time.perf_counter() - began, len(records))


def _milliseconds(seconds: float, count: int) -> float:
    return round(1000 * seconds / count, 3)


def clean(records: list[CellRecord]) -> list[str]:
    """Records without times, in the order of cells."""
    plain = [json.loads(json.dumps(record)) for record in records]
    for record in plain:
        del record["seconds"], record["metrics"]["latency_us"]
    return sorted(json.dumps(record, sort_keys=True) for record in plain)


def main() -> None:
    """Measure, print, and write results.json beside this file."""
    # it reports to nobody, and its workers have the priority of this process: Ray's own wish is the least
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    config = resolve(make_config(OPTIONS))
    cells = plan_cells(config)[:CELLS]
    seconds: dict[str, float] = {}
    found: dict[str, list[str]] = {}
    engine = Engine()
    try:
        with tempfile.TemporaryDirectory() as name:
            store = Path(name)

            def measure(what: str, warm: int, **options: Any) -> list[CellRecord]:
                seconds[what], records = timed_cells(config.model_copy(update=options), store, cells, warm)
                found[what] = clean(records)
                print(f"{what}: {seconds[what]:.1f} s", flush=True)
                return records

            on_engine: dict[str, Any] = {"executor": "ray", "address": engine.address}
            records = measure("this process", 1, jobs=1)
            measure("one machine of the engine", 1, **on_engine)
            empty = timed_calls(engine.address)
            engine.machine()
            measure("two machines of the engine", 2, **on_engine)
            measure("two worker processes", 2, jobs=2)
            memory = _settled(engine.memory)
            journal = timed_journal(records, store)
    finally:
        engine.end()
    here, one, two = (seconds[key] for key in list(seconds)[:3])
    result = {
        "cells": len(cells),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "same_records": all(each == found["this process"] for each in found.values()),
        "overhead_of_a_cell_milliseconds": _milliseconds(one - here, len(cells)),
        "speed_up_of_two_machines": round(one / two, 2),
        "speed_up_of_two_worker_processes": round(here / seconds["two worker processes"], 2),
        "empty_call": empty,
        "journal_line_milliseconds": journal,
        "idle_engine_of_a_head_and_two_machines_mib": {**memory, "in all": round(sum(memory.values()), 1)},
    }
    print(json.dumps(result, indent=2))
    (Path(__file__).parent / "results.json").write_text(json.dumps(result, indent=2) + "\n")


def _settled(measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What is measured once workers of drivers that left are gone."""
    time.sleep(20)
    return measure()


if __name__ == "__main__":
    main()
