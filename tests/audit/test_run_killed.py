"""A run killed with SIGKILL again and again ends with the very results of one that nobody disturbed.

ART_DIVQAT_POINT_KILLS says how many kills at chosen points of the work (20), ART_DIVQAT_KILLS how many of the real
command at random moments (2; `evaluations/benchmarks/kill` does twenty), ART_DIVQAT_KILL_SEED which points and moments.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from art_divqat.results.build import read_results
from art_divqat.results.journal import Journal
from evaluations.benchmarks.kill.killing import (
    CELLS,
    COMMAND,
    CONFIG,
    JOURNAL,
    REPORT,
    STORE,
    THIEF,
    VICTIM,
    ForkServer,
    environment,
    kill_at_random,
    stripped,
)

KILLS = int(os.environ.get("ART_DIVQAT_KILLS", "2"))
POINT_KILLS = int(os.environ.get("ART_DIVQAT_POINT_KILLS", "20"))
SEED = os.environ.get("ART_DIVQAT_KILL_SEED", "0")
# one life of a run: what it is killed in, in this order, and how far on at the most; then it may finish
LIFE = ((VICTIM, 5), (STORE, 3), (JOURNAL, 8), (THIEF, 12), (JOURNAL, 8), (THIEF, 12), (REPORT, 3))

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="fork, SIGKILL and /proc")]


def _leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".") and path.name != ".lock"]


def test_killed_at_points_of_every_kind_and_continued_it_is_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    rng = random.Random(SEED)
    left = POINT_KILLS
    with ForkServer(tmp_path) as server:
        assert server.run("whole", tmp_path / "cache") == 0
        expected = stripped(tmp_path / "whole")
        assert len(read_results(tmp_path / "whole").cells) == CELLS
        life = 0
        while left > 0:
            run, cache = f"run{life}", tmp_path / f"cache{life}"
            finished = 0
            for kind, farthest in LIFE[:left]:
                point = (kind, rng.randint(1, farthest), rng.random())
                assert server.run(run, cache, point) == -9, point
                # whatever was killed: what is there is whole, or is a torn last line, and nothing finished is lost
                if (tmp_path / run / "journal.jsonl").exists() and Journal(tmp_path / run / "journal.jsonl").exists():
                    cells = len(Journal(tmp_path / run / "journal.jsonl").read()[1])
                    assert cells >= finished
                    finished = cells
                assert stripped(tmp_path / run) in ("", expected)
            left -= len(LIFE)
            assert server.run(run, cache) == 0
            assert stripped(tmp_path / run) == expected
            assert len(_leftovers(tmp_path / run)) <= len(LIFE)
            life += 1


def _workers(parent: int) -> set[int]:
    """Processes whose parent is this one, themselves or through others."""
    found: set[int] = set()
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        found |= {int(child)} | _workers(int(child))
    return found


def test_workers_do_not_outlive_a_killed_run(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "art_divqat", *COMMAND, "--jobs", "2", "--output", "run"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path, "cache"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    journal = tmp_path / "run" / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
        time.sleep(0.05)
    workers = _workers(process.pid)
    process.kill()
    process.wait()
    assert len(workers) >= 2
    deadline = time.monotonic() + 60
    while alive := {pid for pid in workers if _runs(pid)}:
        assert time.monotonic() < deadline, f"{alive} live on"
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_killed_anywhere_and_continued_it_is_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    died = kill_at_random(tmp_path, KILLS, SEED)
    assert len(died) == KILLS
    assert len(read_results(tmp_path / "whole").cells) == CELLS
    assert len(_leftovers(tmp_path / "killed")) <= KILLS
