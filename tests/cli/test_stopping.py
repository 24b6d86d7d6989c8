"""Signals end the command at any moment: one line, an exit code that says which, and no process left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from art_divqat.cli.stopping import MESSAGE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="POSIX signals and /proc")

# two seconds, and a machine that does other things besides
SLACK = float(os.environ.get("ART_DIVQAT_STOP_SECONDS", "6"))
SAID = f"art-divqat: {MESSAGE}\n"
# the real `main` with commands that only wait, so that each moment can be hit
PROGRAM = """
import atexit, ctypes, functools, os, sys, time
from pathlib import Path
from art_divqat.cli import app as room
from art_divqat.audit.pool import WorkerPool

def work(number, folder):
    (Path(folder) / f"ready{number}").touch()
    time.sleep(100)

@room.app.command("pool")
def pool(folder: str):
    workers = WorkerPool(2, 1)
    try:
        for _ in workers.run([(functools.partial(work, n, folder), f"cell {n}") for n in range(4)]):
            pass
    finally:
        workers.end()

@room.app.command("held-pool")
def held_pool(folder: str):
    # the pool is not ended by the main thread
    workers = WorkerPool(2, 1)
    results = workers.run([(functools.partial(work, n, folder), f"cell {n}") for n in range(4)])
    while True:
        try:
            next(results)
        except BaseException:
            time.sleep(100)

@room.app.command("starting")
def starting(folder: str):
    (Path(folder) / "ready").touch()
    pool(folder)

@room.app.command("compiled")
def compiled(folder: str):
    # a C function that holds the main thread and goes on after a signal, as a long kernel does
    libc = ctypes.CDLL(None)
    (Path(folder) / "ready").touch()
    end = time.monotonic() + 100
    lock = (ctypes.c_char * 40)()
    libc.pthread_mutex_init(lock, None)
    libc.pthread_mutex_lock(lock)
    libc.pthread_mutex_lock(lock)

@room.app.command("swallows")
def swallows(folder: str):
    (Path(folder) / "ready").touch()
    while True:
        try:
            time.sleep(100)
        except BaseException:
            pass

@room.app.command("turns")
def turns(folder: str):
    (Path(folder) / "ready").touch()
    try:
        time.sleep(100)
    except KeyboardInterrupt:
        raise RuntimeError("an extension made this of it")

@room.app.command("slow-end")
def slow_end(folder: str):
    (Path(folder) / "ready").touch()
    try:
        time.sleep(100)
    finally:
        time.sleep(.6)

@room.app.command("taken-down")
def taken_down(folder: str):
    # as the modules of a large library are, at the interpreter's own end
    class Module:
        def __del__(self, sleep=time.sleep):
            sleep(100)
    sys.modules["a large library"] = Module()
    (Path(folder) / "ready").touch()
    time.sleep(100)

@room.app.command("over")
def over(folder: str):
    atexit.register(lambda: ((Path(folder) / "ready").touch(), time.sleep(100)))

@room.app.command("lost")
def lost(folder: str):
    workers = WorkerPool(2, 1)
    for _ in workers.run([(functools.partial(os.abort), "cell 0")]):
        pass

sys.argv = ["art-divqat", *sys.argv[1:]]
from art_divqat.cli import main; main()
"""


def _children(parent: int) -> set[int]:
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{parent}/task").iterdir():
            for child in (task / "children").read_text().split():
                found |= {int(child)} | _children(int(child))
    return found


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _listen() -> None:
    # a shell that runs the tests in the background has them ignore Ctrl-C, and children inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and `nohup` has them ignore this one


@contextlib.contextmanager
def started(command: str | list[str], folder: Path, ready: str = "ready") -> Iterator[subprocess.Popen[str]]:
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, command, str(folder)] if isinstance(command, str) else command,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
            start_new_session=True,
            preexec_fn=_listen,
        )
    try:
        deadline = time.monotonic() + 120
        while not (folder / ready).exists():
            assert process.poll() is None, (folder / "stderr").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process
    finally:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ends(process: subprocess.Popen[str], workers: set[int], folder: Path, number: int) -> None:
    deadline = time.monotonic() + SLACK
    assert process.wait(timeout=SLACK) == 128 + number, (folder / "stderr").read_text()
    while alive := {pid for pid in workers if _runs(pid)}:
        assert time.monotonic() < deadline, f"{alive} live on"
        time.sleep(0.02)
    assert (folder / "stderr").read_text() == SAID


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("whole_group", [True, False])
def test_a_pool_ends_with_the_command(tmp_path: Path, number: int, whole_group: bool) -> None:
    with started("pool", tmp_path, "ready1") as process:
        workers = _children(process.pid)
        assert len(workers) >= 2
        (os.killpg if whole_group else os.kill)(process.pid, number)
        _ends(process, workers, tmp_path, number)


def test_a_pool_ends_where_the_main_thread_does_not_end_it(tmp_path: Path) -> None:
    with started("held-pool", tmp_path, "ready1") as process:
        workers = _children(process.pid)
        os.kill(process.pid, signal.SIGTERM)
        _ends(process, workers, tmp_path, signal.SIGTERM)


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.25, 0.5])
def test_while_workers_are_being_started(tmp_path: Path, delay: float) -> None:
    with started("starting", tmp_path) as process:
        time.sleep(delay)
        workers = _children(process.pid)
        os.killpg(process.pid, signal.SIGTERM)
        _ends(process, workers, tmp_path, signal.SIGTERM)


@pytest.mark.parametrize("command", ["compiled", "swallows", "turns", "slow-end", "taken-down"])
def test_whatever_the_main_thread_does(tmp_path: Path, command: str) -> None:
    with started(command, tmp_path) as process:
        os.kill(process.pid, signal.SIGTERM)
        _ends(process, set(), tmp_path, signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_while_modules_are_imported(tmp_path: Path, number: int) -> None:
    # typer is the first library that the command line imports
    (tmp_path / "typer.py").write_text("import pathlib, time\npathlib.Path('ready').touch()\ntime.sleep(100)\n")
    code = "from art_divqat.cli import main; main()"
    with started([sys.executable, "-c", code], tmp_path) as process:
        os.kill(process.pid, number)
        _ends(process, set(), tmp_path, number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_after_the_last_line_nothing_holds_the_process(tmp_path: Path, number: int) -> None:
    with started("over", tmp_path) as process:
        os.kill(process.pid, number)
        assert process.wait(timeout=SLACK) == -number
    assert (tmp_path / "stderr").read_text() == ""


def test_a_second_signal_changes_nothing(tmp_path: Path) -> None:
    with started("slow-end", tmp_path) as process:
        os.kill(process.pid, signal.SIGHUP)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            time.sleep(0.1)
            os.kill(process.pid, number)
        _ends(process, set(), tmp_path, signal.SIGHUP)


def test_a_signal_that_the_caller_ignores_stays_ignored(tmp_path: Path) -> None:
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from art_divqat.cli.stopping import StopSignals\nStopSignals().listen()\n"
        "import os; os.kill(os.getpid(), signal.SIGHUP); print('on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "on\n")


def test_a_worker_that_is_lost_twice_is_no_bug(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "lost", str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 3
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("art-divqat:")]
    assert "--jobs" in line
    assert "memory" in line
