"""A run killed with SIGKILL again and again ends with the very results of one that nobody disturbed.

ART_DIVQAT_KILLS says how many kills; two by default.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import art_divqat
from art_divqat.audit.journal import canonical_json
from art_divqat.audit.results import read_results
from art_divqat.audit.schema import TIMINGS, Results

KILLS = int(os.environ.get("ART_DIVQAT_KILLS", "2"))
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
jobs: 1
"""


def _clean(value: object) -> object:
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items() if key not in TIMINGS}
    return [_clean(item) for item in value] if isinstance(value, list) else value


def _results(folder: Path) -> str:
    return canonical_json(_clean(Results.model_validate_json((folder / "results.json").read_text()).model_dump()))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_anywhere_and_continued_it_is_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "art_divqat", "evaluate", "--config", "c.yaml", "--quiet", "--output"]
    root = str(Path(art_divqat.__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}

    def start(folder: str, cache: str) -> subprocess.Popen[bytes]:
        given = {**environment, "XDG_CACHE_HOME": str(tmp_path / cache)}
        return subprocess.Popen(
            [*command, folder], cwd=tmp_path, env=given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    undisturbed = start("whole", "cache-whole")
    assert undisturbed.wait(timeout=300) == 0
    assert len(read_results(tmp_path / "whole").cells) == 24

    rng = random.Random(os.environ.get("ART_DIVQAT_KILL_SEED", "0"))
    journal = tmp_path / "killed" / "journal.jsonl"
    died = 0
    while died < KILLS:
        process = start("killed", "cache-killed")
        # a kill lands among the cells that one start has time for, or before the first of them
        ahead = rng.randint(0, max(1, 2 * 24 // max(KILLS, 4)))
        held = journal.read_bytes().count(b"\n") if journal.exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            lines = journal.read_bytes().count(b"\n") if journal.exists() else 0
            if lines >= held + ahead:
                break
            time.sleep(0.005)
        time.sleep(rng.random() * (6 if ahead == 0 else 0.2))
        if process.poll() is not None:
            # it finished before it could be killed: begin again from nothing
            _, said = process.communicate()
            assert process.returncode == 0, said
            assert _results(tmp_path / "killed") == _results(tmp_path / "whole")
            for path in (tmp_path / "killed").iterdir():
                path.unlink()
            continue
        process.send_signal(signal.SIGKILL)
        process.communicate()
        died += 1
        whole_json = tmp_path / "killed" / "results.json"
        assert not whole_json.exists() or _results(tmp_path / "killed") == _results(tmp_path / "whole")
    last = start("killed", "cache-killed")
    _, said = last.communicate(timeout=300)
    assert last.returncode == 0, said
    assert _results(tmp_path / "killed") == _results(tmp_path / "whole")
    leftovers = [
        path.name for path in (tmp_path / "killed").iterdir() if path.name.startswith(".") and path.name != ".lock"
    ]
    assert len(leftovers) <= died
