"""Worker processes: start them, keep each busy, try again alone what a killed one was doing, and end them at once."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from art_divqat._memory import keep_freed_memory
from art_divqat._signals import SIGNALS
from art_divqat.errors import LostWorkerError, UserError

T = TypeVar("T")
Call = Callable[[], Any]

_WATCH_SECONDS = 0.25
_LIBRARIES = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMBA", "NUMEXPR")
THREAD_VARIABLES = [*(f"{library}_NUM_THREADS" for library in _LIBRARIES), "VECLIB_MAXIMUM_THREADS"]


class WorkerPool:
    """Processes that perform calls, started with the first; :meth:`end` ends them.

    :param workers: how many.
    :param threads: what numerical libraries use in each.
    """

    def __init__(self, workers: int, threads: int) -> None:
        self._workers = workers
        self._threads = threads
        self._processes: Any = None

    def run(self, calls: list[tuple[Call, str]]) -> Iterator[tuple[int, Any]]:
        """Perform calls and yield (number of the call, its result) as each is done, in no particular order.

        What was under way when the system killed a worker is performed once more, each call with nothing beside it.

        :param calls: each with what it is in words.
        :raises LostWorkerError: if a worker is killed then too.
        """
        waiting = deque(range(len(calls)))
        running: dict[Future[Any], int] = {}
        while waiting or running:
            lost: list[int] = []
            while waiting and len(running) < self._workers and not lost:
                number = waiting.popleft()
                try:
                    running[self._submit(calls[number][0], self._workers)] = number
                except BrokenProcessPool:
                    lost.append(number)
            if not lost:
                wait(running, return_when=FIRST_COMPLETED)
            for future in [future for future in running if lost or future.done()]:
                number = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    lost.append(number)
                except UserError as error:
                    # its cause is the worker's traceback, which is no news to a user
                    raise error from None
                else:
                    yield number, result
            if lost:
                # all that was under way is lost with one worker, and which of the calls was too much is not known
                lost += running.values()
                running.clear()
                for number in sorted(lost):
                    yield number, self._alone(*calls[number])

    def _alone(self, call: Call, description: str) -> Any:
        self.end()
        try:
            return self._submit(call, 1).result()
        except UserError as error:
            raise error from None
        except BrokenProcessPool as error:
            how = re.findall(r"SIG\w+", str(error))
            raise LostWorkerError(
                f"A worker process was killed twice{f' by {how[0]}' if how else ''} in {description}, the second time "
                "with nothing beside it: most likely the memory of this machine is not enough; lower --jobs, --limit "
                "or --budget. What was finished is kept: the same command goes on from there."
            ) from None
        finally:
            self.end()

    def _submit(self, call: Call, workers: int) -> Future[Any]:
        def submit() -> Future[Any]:
            if self._processes is None:
                from joblib.externals.loky import ProcessPoolExecutor
                from joblib.externals.loky.backend import resource_tracker

                # it cleans up after a main process that had no time to, and need not say so
                silent = f"ignore::UserWarning:{resource_tracker.__name__}"
                with _environment("PYTHONWARNINGS", ",".join(filter(None, [os.getenv("PYTHONWARNINGS"), silent]))):
                    resource_tracker.ensure_running()
                threads = dict.fromkeys(THREAD_VARIABLES, str(self._threads))
                self._processes = ProcessPoolExecutor(
                    workers, env=threads, initializer=_start_worker, initargs=(os.getpid(),)
                )
            return self._processes.submit(call)  # type: ignore[no-any-return]

        return _out_of_reach(submit)

    def end(self) -> None:
        """End every process, in the middle of a call too; the next call starts others."""
        processes, self._processes = self._processes, None
        if processes is not None:
            # at once: what follows first looks for processes of theirs, by a program of the system for each
            for worker in list(processes._processes):
                with contextlib.suppress(OSError):
                    os.kill(worker, getattr(signal, "SIGKILL", signal.SIGTERM))
            with warnings.catch_warnings(), _silent_threads():
                warnings.simplefilter("ignore")
                processes.shutdown(wait=True, kill_workers=True)


@contextlib.contextmanager
def _silent_threads() -> Iterator[None]:
    """Print nothing of an exception in another thread.

    That of loky looks for a killed worker's children by `pgrep`, which a signal to the group may end, and fails then.
    """
    before = threading.excepthook
    threading.excepthook = lambda _: None
    try:
        yield
    finally:
        threading.excepthook = before


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _out_of_reach(work: Callable[[], T]) -> T:
    """Do something in a thread, which no signal interrupts, and whose processes are born deaf to those of a group.

    A worker that is half started when the main thread is interrupted would be nobody's.
    """

    def in_thread() -> T:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(in_thread).result()


def _start_worker(parent: int) -> None:
    """Leave signals of the group to the main process, and end when it does."""
    from joblib.externals.loky import process_executor

    keep_freed_memory()
    # where psutil is installed, loky takes the images and victims that a worker keeps for a leak, and replaces it
    process_executor._USE_PSUTIL = False
    for number in SIGNALS:
        with contextlib.suppress(ValueError):
            signal.signal(number, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    os.environ["TQDM_DISABLE"] = "1"

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="ends with its parent", daemon=True).start()
