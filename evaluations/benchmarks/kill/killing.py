"""Kills a run with SIGKILL: at a chosen point of its work in a forked process, or the real command at a random moment.

`python evaluations/benchmarks/kill/killing.py` is the fork server: it imports everything once and
reads one request a line.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
CELLS = 24
CONFIG = """
limit: 100
victims: [standard]
attacks: [knockoff, random]
answers: [soft, hard]
budgets: [20, 40]
seeds: 3
model: lenet5
thief_model: lenet5
query_pool: in-distribution
victim_recipe: {epochs: 1}
thief_recipe: {epochs: 1}
evasion: {images: 10, steps: 2}
"""
# the kinds of work that a kill may land in; each is hit at a random occurrence, torn at a random byte where it writes
JOURNAL, STORE, VICTIM, THIEF, REPORT = "journal line", "store file", "victim training", "thief training", "report file"
COMMAND = ("evaluate", "--config", "c.yaml", "--quiet")


def stripped(folder: Path) -> str:
    """results.json of a run folder without times, as one canonical text; "" where there is none."""
    from art_divqat._canonical import canonical_json
    from art_divqat.results.schema import TIMINGS, Results

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items() if key not in TIMINGS}
        return [clean(item) for item in value] if isinstance(value, list) else value

    path = folder / "results.json"
    if not path.exists():
        return ""
    return canonical_json(clean(Results.model_validate_json(path.read_text(encoding="utf-8")).model_dump(mode="json")))


def environment(folder: Path, cache: str) -> dict[str, str]:
    """One thread, this source tree, and a cache of its own."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(folder / cache),
    }


class ForkServer:
    """Runs the command in forked children of one process that has imported everything, which spares the imports.

    :param folder: where c.yaml lies and runs are written.
    """

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=folder,
            env=environment(folder, "unused"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, output: str, cache: Path, kill: tuple[str, int, float] | None = None) -> int:
        """The exit status of one run, negative for a signal.

        :param kill: the kind of work, which occurrence of it, and the part of the bytes that were written by then.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([output, str(cache), kill]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)


def kill_at_random(folder: Path, kills: int, seed: str, jobs: int = 1) -> list[dict[str, Any]]:
    """Kill the real command at random moments, starting it again each time; then let it finish.

    A run that finishes before it is killed is checked against `whole` and begun again from nothing.

    :return: for each kill, how many cells were on the disk, whether the last line was torn, and the seconds since the
        start.
    """
    command = [sys.executable, "-m", "art_divqat", *COMMAND, "--jobs", str(jobs), "--output"]

    def start(output: str, cache: str) -> subprocess.Popen[bytes]:
        # a file and no pipe: workers of a killed run live on for a while, and would hold a pipe open
        with (folder / "stderr").open("wb") as stderr:
            return subprocess.Popen(
                [*command, output],
                cwd=folder,
                env=environment(folder, cache),
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    if not (folder / "whole").exists():
        assert start("whole", "cache-whole").wait(timeout=600) == 0
    expected = stripped(folder / "whole")
    rng = random.Random(seed)
    killed, attempt = folder / "killed", 0
    journal = killed / "journal.jsonl"
    done: list[dict[str, Any]] = []
    while len(done) < kills:
        process = start("killed", f"cache-killed-{attempt}")
        began = time.monotonic()
        # a kill lands among the cells that one start has time for, or before the first of them
        ahead = rng.randint(0, max(1, 2 * CELLS // max(kills, 4)))
        held = journal.read_bytes().count(b"\n") if journal.exists() else 0
        while process.poll() is None and time.monotonic() < began + 120:
            if (journal.read_bytes().count(b"\n") if journal.exists() else 0) >= held + ahead:
                break
            time.sleep(0.005)
        time.sleep(rng.random() * (6 if ahead == 0 else 0.2))
        if process.poll() is not None:
            assert process.returncode == 0, (folder / "stderr").read_text()
            assert stripped(killed) == expected
            for path in killed.iterdir():
                path.unlink()
            attempt += 1
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = journal.read_bytes() if journal.exists() else b""
        done.append(
            {
                "cells": max(0, content.count(b"\n") - 1),
                "torn": bool(content) and not content.endswith(b"\n"),
                "seconds": round(time.monotonic() - began, 2),
            }
        )
        assert stripped(killed) in ("", expected)
    last = start("killed", f"cache-killed-{attempt}")
    assert last.wait(timeout=600) == 0, (folder / "stderr").read_text()
    assert stripped(killed) == expected
    return done


def _die_at(kind: str, occurrence: int, part: float) -> None:
    """Arrange that this process kills itself with SIGKILL at one point of its work."""
    from art_divqat.audit.progress import Silent

    left = occurrence

    def reached() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def die(torn: Path | None = None) -> None:
        if torn is not None:
            os.truncate(torn, int(os.path.getsize(torn) * part))  # noqa: PTH202
        os.kill(os.getpid(), signal.SIGKILL)

    sync, replace, working = os.fsync, Path.replace, Silent.working

    def fsync(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))  # noqa: PTH115
        if path.name == "journal.jsonl" and reached():
            content = path.read_bytes()
            start = content[:-1].rfind(b"\n") + 1
            os.truncate(path, start + int((len(content) - start) * part))
            die()
        sync(handle)

    def move(self: Path, target: Path) -> Path:
        where = STORE if Path(target).name.endswith((".safetensors", "victim.json")) else REPORT
        wanted = where == kind and reached()
        # killed half-way through the bytes, or just after the file got its name
        if wanted and part < 0.8:
            die(self)
        moved = replace(self, target)
        if wanted:
            die()
        return moved

    def work(self: Silent, worker: str, description: str, done: int, total: int) -> None:
        doing = VICTIM if description.startswith("training standard") else THIEF
        if doing == kind and reached():
            die()
        working(self, worker, description, done, total)

    if kind == JOURNAL:
        os.fsync = fsync
    elif kind in (STORE, REPORT):
        Path.replace = move  # type: ignore[method-assign, assignment]
    else:
        Silent.working = work  # type: ignore[method-assign]


def _serve() -> None:
    import torch._dynamo  # noqa: F401

    from art_divqat.cli import main

    for line in sys.stdin:
        output, cache, kill = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                os.environ["XDG_CACHE_HOME"] = cache
                with Path(os.devnull).open("w") as nothing:
                    os.dup2(nothing.fileno(), 1)
                if kill is not None:
                    _die_at(*kill)
                sys.argv = ["art-divqat", *COMMAND, "--jobs", "1", "--output", output]
                main()
            except SystemExit as end:
                os._exit(int(end.code or 0))
            finally:
                os._exit(99)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
