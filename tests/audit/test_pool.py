"""Worker processes: what is lost with one that the system kills is performed once more, alone."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from art_divqat.audit.pool import WorkerPool
from art_divqat.errors import LostWorkerError, UserError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")


def _work(number: int, folder: Path, killed: int, times: int) -> tuple[int, int]:
    """The number and how many others were under way; the killed one dies as often as is said."""
    mark = folder / f"{number}-{os.getpid()}"
    mark.touch()
    tries = folder / f"tries-{number}"
    with tries.open("a") as file:
        file.write("x")
    if number == killed and len(tries.read_text()) <= times:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    mark.unlink()
    return number, len(tries.read_text())


def _refuse() -> None:
    raise UserError("refused")


def _one_by_one(kept: dict[int, tuple[int, int]], results: Iterator[tuple[int, tuple[int, int]]]) -> None:
    for number, result in results:
        kept[number] = result


def calls(folder: Path, killed: int, times: int) -> list[tuple[functools.partial[tuple[int, int]], str]]:
    return [(functools.partial(_work, number, folder, killed, times), f"cell {number}") for number in range(5)]


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(2, 1)
    yield pool
    pool.end()


@pytest.mark.parametrize("killed", [0, 2, 4])
def test_what_a_killed_worker_did_is_done_once_more(pool: WorkerPool, tmp_path: Path, killed: int) -> None:
    results = dict(pool.run(calls(tmp_path, killed, times=1)))
    assert set(results) == set(range(5))
    assert results[killed] == (killed, 2)
    # the pool goes on
    assert dict(pool.run(calls(tmp_path, -1, times=0))).keys() == set(range(5))


def test_killed_twice_it_names_memory_and_jobs_and_keeps_the_rest(pool: WorkerPool, tmp_path: Path) -> None:
    kept: dict[int, tuple[int, int]] = {}
    with pytest.raises(LostWorkerError, match=r"killed twice by SIGKILL in cell 3, .* memory .* --jobs"):
        _one_by_one(kept, pool.run(calls(tmp_path, 3, times=2)))
    assert {0, 1} <= set(kept)
    assert 3 not in kept
    assert (tmp_path / "tries-3").read_text() == "xx"


def test_an_error_of_a_call_comes_through(pool: WorkerPool) -> None:
    with pytest.raises(UserError, match="refused"):
        list(pool.run([(_refuse, "a cell")]))
    assert list(pool.run([])) == []


_GREEDY = """
class Process:
    size = 0
    def __init__(self, pid): pass
    def memory_info(self):
        Process.size += 10**9
        return self
    rss = property(lambda self: self.size)
"""


def _keeping() -> int:
    time.sleep(1.1)  # loky looks once a second
    return os.getpid()


def test_a_worker_that_keeps_what_it_has_read_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "psutil.py").write_text(_GREEDY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    pool = WorkerPool(1, 1)
    try:
        processes = {pid for _, pid in pool.run([(_keeping, str(number)) for number in range(4)])}
    finally:
        pool.end()
    assert len(processes) == 1
    assert not [warning for warning in recwarn if "A worker stopped" in str(warning.message)]


def test_ending_it_prints_nothing_where_the_search_for_children_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when a signal to the whole group ends the `pgrep` that loky asks for the children of a killed worker."""
    from joblib.externals.loky import process_executor

    asked: list[int] = []

    def fails(process: object) -> None:
        asked.append(1)
        raise AttributeError("'Popen' object has no attribute 'kill'")

    pool = WorkerPool(2, 1)
    results = pool.run([(functools.partial(time.sleep, number * 30), "a cell") for number in range(3)])
    next(results)
    monkeypatch.setattr(process_executor, "kill_process_tree", fails)
    printed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    pool.end()
    assert asked, "loky searches"
    assert printed == []
    assert threading.excepthook == printed.append, "of the others' again"
