"""The one seam that decides where a piece of work runs: in this process, or over the cores with joblib."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from art_divqat._canonical import content_hash
from art_divqat.audit.progress import ProgressFile, Watcher
from art_divqat.plan.cells import Cell
from art_divqat.plan.config import ResolvedConfig
from art_divqat.victims.external.settings import is_external

_MOST_DEFAULT_JOBS = 4
_WATCH_SECONDS = 1.0


@dataclass(frozen=True)
class Task:
    """One piece of work: describe the data, have a victim ready (and measured, if `trained`), or measure a cell."""

    kind: Literal["describe", "victim", "trained", "cell"]
    config: ResolvedConfig
    store: Path
    retrain: bool = False
    victim: tuple[str, int] | None = None
    cell: Cell | None = None

    @property
    def description(self) -> str:
        """In words."""
        if self.cell is not None:
            return f"{self.cell.attack} ({self.cell.answers}) on {self.cell.victim}, {self.cell.budget} queries"
        return f"victim {self.victim[0]}, seed {self.victim[1]}" if self.victim else "data"


def default_jobs(config: ResolvedConfig) -> int:
    """How many cells run side by side unless told: a core each, at most four; one on a GPU."""
    if config.device != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // config.threads, _MOST_DEFAULT_JOBS))


def run_tasks(tasks: Sequence[Task], jobs: int, watcher: Watcher) -> Iterator[tuple[int, Any]]:
    """Do the tasks and yield (number of the task, its result) as each is done, in no particular order.

    With `jobs` = 1 everything happens in this process; with more this process never loads torch. Any exception, an
    interrupt among them, stops the others.
    """
    if not tasks:
        return
    if jobs == 1:
        for number, task in enumerate(tasks):
            yield number, perform(task, lambda *state: watcher.working("0", *state))
        return
    yield from _in_processes(tasks, jobs, watcher)


def _in_processes(tasks: Sequence[Task], jobs: int, watcher: Watcher) -> Iterator[tuple[int, Any]]:
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky import get_reusable_executor

    finished = False
    with (
        tempfile.TemporaryDirectory(prefix="art-divqat-") as name,
        _watching(folder := Path(name), watcher),
        parallel_config("loky", inner_max_num_threads=tasks[0].config.threads),
    ):
        parent = os.getpid()
        calls = (delayed(_perform_numbered)(n, task, folder / str(n), parent) for n, task in enumerate(tasks))
        try:
            yield from Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch="n_jobs")(calls)
            finished = True
        finally:
            if not finished:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    get_reusable_executor().shutdown(wait=False, kill_workers=True)


def _perform_numbered(number: int, task: Task, progress_file: Path, parent: int) -> tuple[int, Any]:
    _leave_with(parent)
    # Ctrl-C goes to the whole process group; the main process decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        return number, perform(task, ProgressFile(progress_file))
    finally:
        with contextlib.suppress(OSError):
            progress_file.unlink()


@cache
def _leave_with(parent: int) -> None:
    """End this worker when the process that asked it is killed: joblib's would wait for work for five minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    if os.getppid() == parent:
        threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _watching(folder: Path, watcher: Watcher) -> Iterator[None]:
    """Pass on, from a thread, what the workers write into their progress files."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(ProgressFile.INTERVAL_SECONDS):
            for path in sorted(folder.iterdir()):
                state = ProgressFile.read(path)
                if state is not None:
                    watcher.working(path.name, *state)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


_bench: tuple[str, Any] | None = None


def forget() -> None:
    """Let go of what the last task loaded."""
    global _bench
    _bench = None


def perform(task: Task, progress: Any) -> Any:
    """Do one task here; what it loads stays in this process for the next one of the same configuration."""
    import torch

    from art_divqat.audit.bench import Bench
    from art_divqat.audit.cell import run_cell
    from art_divqat.audit.robustness import check_evasion, victim_robustness
    from art_divqat.defences.registry import check_defence, parse_defence
    from art_divqat.models.registry import check_model

    global _bench
    config = task.config
    key = content_hash([config.model_dump(mode="json"), config.trust_code, str(config.answers_file), str(task.store)])
    if _bench is None or _bench[0] != key:
        _bench = (key, Bench(task.config, task.store))
    bench: Bench = _bench[1]
    threads = torch.get_num_threads()
    torch.set_num_threads(task.config.threads)
    try:
        if task.victim is not None:
            bench.victim(*task.victim, progress, retrain=task.retrain)
            if task.kind == "victim" and task.victim[0] in config.victims:
                # here, once, so that cells side by side find it in the store; not for one that is only quantized from
                victim_robustness(bench, *task.victim, progress, retrain=task.retrain)
            return bench.measured_victim(*task.victim) if task.kind == "trained" else None
        if task.cell is not None:
            return run_cell(task.cell, bench, progress)
        for defence in task.config.defences:
            check_defence(parse_defence(defence), bench.dataset.input_shape)
        check_evasion(bench)
        check_model(task.config.model, bench.dataset.input_shape)
        check_model(task.config.thief_model, bench.dataset.input_shape)
        if config.external is not None and not config.external.is_remote:
            # what cannot be read is refused before anything is written
            bench.external(next(victim for victim in config.victims if is_external(victim)))
        return {
            "dataset": bench.dataset.describe(),
            "pool": {**bench.pool.describe(), "overlap": bench.pool_overlap},
            "evasion_images": len(bench.evasion_rows),
        }
    finally:
        torch.set_num_threads(threads)
