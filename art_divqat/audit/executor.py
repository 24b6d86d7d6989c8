"""Executor: perform tasks in this process, over the cores, or on an engine; nothing else decides where work runs."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from art_divqat._files import default_data_root
from art_divqat._memory import keep_freed_memory
from art_divqat._types import PhaseProgress
from art_divqat.audit.pool import WorkerPool
from art_divqat.audit.progress import ProgressFile, Watcher
from art_divqat.audit.ray_pool import RayPool
from art_divqat.audit.tasks import Task
from art_divqat.errors import UserError
from art_divqat.plan.config import ResolvedConfig

if TYPE_CHECKING:
    from art_divqat.audit.bench import Bench
    from art_divqat.audit.robustness import Robustness
    from art_divqat.victims.victim import Victim

_MOST_DEFAULT_JOBS = 4


def default_jobs(config: ResolvedConfig) -> int:
    """How many cells run side by side here unless told: a core each, at most four; one on a GPU."""
    if config.device != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // config.threads, _MOST_DEFAULT_JOBS))


class Executor:
    """Performs the tasks of one configuration; `with` lets go of what they loaded, and ends the other processes.

    With one job everything happens in this process; with more, or on an engine, this process never loads torch.

    :param config: a resolved configuration; its `jobs` say how many processes, as many as make sense if None. On an
        engine they are the most tasks side by side, as many as it has room for if None.
    :param store: where trained victims are kept.
    :param watcher: is told what each worker is in the middle of.
    :param live: the victim that an `external` one stands for, where that is an object of this process; only this
        process works then.
    """

    def __init__(self, config: ResolvedConfig, store: Path, watcher: Watcher, live: Victim | None = None) -> None:
        self.jobs = 1 if live is not None else config.jobs or default_jobs(config)
        self._config = config
        self._store = store
        self._watcher = watcher
        self._live = live
        self._loaded: tuple[Bench, Robustness] | None = None
        self._pool: WorkerPool | RayPool | None = None
        self._data: dict[str, Any] | None = None

    def expect(self, data: dict[str, Any]) -> None:
        """Have other machines refuse to work on data that are not these, as a run describes them."""
        self._data = data

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loaded = None
        if self._pool is not None:
            self._pool.end()

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """Do the tasks and yield (number of the task, its result) as each is done, in no particular order.

        Any exception, an interrupt among them, stops the others.

        :raises LostWorkerError: if the system killed the worker of a task, and again with nothing beside it.
        """
        if not tasks:
            return
        if self._config.executor != "local":
            yield from self._on_engine(tasks)
            return
        if self.jobs > 1:
            yield from self._in_processes(tasks)
            return
        if self._loaded is None:
            self._loaded = _load(self._config, self._store, self._live)
        for number, task in enumerate(tasks):
            yield number, _perform(task, self._loaded, functools.partial(self._watcher.working, "0"))

    def _on_engine(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        config = self._config
        pool = self._pool = self._pool or RayPool(
            config.address, threads=config.threads, gpus=config.gpus_per_cell, most=config.jobs
        )
        # a machine finds data where this one does, unless another place was named
        there = config.model_copy(update={"data_root": (config.data_root or default_data_root()).absolute()})
        job = EngineJob(there, self._store.absolute(), Path.cwd(), self._data)
        finished = False
        try:
            yield from pool.run([(functools.partial(job.perform, task), task.description) for task in tasks])
            finished = True
        finally:
            if not finished:
                pool.end()

    def _in_processes(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        pool = self._pool = self._pool or WorkerPool(self.jobs, self._config.threads)
        with (
            tempfile.TemporaryDirectory(prefix="art-divqat-") as name,
            _watching(folder := Path(name), self._watcher),
        ):
            work = [
                functools.partial(_perform_in_worker, task, folder / str(number), self._config, self._store)
                for number, task in enumerate(tasks)
            ]
            finished = False
            try:
                yield from pool.run([(call, task.description) for call, task in zip(work, tasks, strict=True)])
                finished = True
            finally:
                # before the folder goes that they write into
                if not finished:
                    pool.end()


@dataclass(frozen=True)
class EngineJob:
    """What a worker of an engine needs to know of a run; it may be on another machine.

    :param config: of the run, with the place of data sets.
    :param store: where trained victims are kept: one folder of all machines, or one on each.
    :param folder: the working folder, which relative paths of the configuration start from.
    :param data: the data of the run as it describes them, once they are known.
    """

    config: ResolvedConfig
    store: Path
    folder: Path
    data: Mapping[str, Any] | None

    def perform(self, task: Task) -> Any:
        """Do a task on what this process has loaded.

        :raises UserError: if this machine holds other data than the run.
        """
        keep_freed_memory()
        warnings.simplefilter("ignore")
        with contextlib.suppress(OSError):
            os.chdir(self.folder)
        loaded = _load_once(self.config, self.store)
        if self.data is not None:
            bench, _ = loaded
            for part, found in (("dataset", bench.dataset.checksum), ("pool", bench.pool.checksum)):
                if found != (expected := self.data[part]["checksum"]):
                    raise UserError(
                        f"The {part} of the run has the checksum {expected}, and on {platform.node()} it has {found}: "
                        "every machine must read the same files."
                    )
        return _perform(task, loaded, _unwatched)


def _unwatched(description: str, done: int, total: int) -> None:
    """Nobody sees what a worker of another machine is in the middle of."""


def _load(config: ResolvedConfig, store: Path, live: Victim | None = None) -> tuple[Bench, Robustness]:
    from art_divqat.audit.bench import Bench
    from art_divqat.audit.robustness import Robustness

    bench = Bench(config, store, live)
    return bench, Robustness(bench)


# The one mutable state of a module: the pool hands a worker one function call after another, and nothing else of ours
# lives as long as the worker. It is used in workers alone.
_load_once = functools.lru_cache(maxsize=1)(_load)


def _perform(task: Task, loaded: tuple[Bench, Robustness], progress: PhaseProgress) -> Any:
    import torch

    bench, robustness = loaded
    threads = torch.get_num_threads()
    torch.set_num_threads(bench.config.threads)
    try:
        return task.perform(bench, robustness, progress)
    finally:
        torch.set_num_threads(threads)


def _perform_in_worker(task: Task, progress_file: Path, config: ResolvedConfig, store: Path) -> Any:
    try:
        return _perform(task, _load_once(config, store), ProgressFile(progress_file))
    finally:
        with contextlib.suppress(OSError):
            progress_file.unlink()


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
