"""Twenty SIGKILLs at random moments of a run of 24 cells, with one job and with two: the same results each time.

`python evaluations/benchmarks/kill/run.py [KILLS] [SEED] [JOBS …]` writes results.json beside this file, where what was
found with another number of jobs stays. It fails where results differ.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

from killing import CELLS, CONFIG, kill_at_random, stripped

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Kill, compare, and write down where each kill landed."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seed = sys.argv[2] if len(sys.argv) > 2 else "0"
    path = HERE / "results.json"
    found = json.loads(path.read_text()) if path.exists() else []
    for jobs in map(int, sys.argv[3:] or ("1", "2")):
        found = [run for run in found if run["jobs"] != jobs]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "c.yaml").write_text(CONFIG)
            began = time.monotonic()
            died = kill_at_random(folder, kills, seed, jobs)
            same = stripped(folder / "killed") == stripped(folder / "whole")
            found.append(
                {
                    "jobs": jobs,
                    "cells": CELLS,
                    "kills": len(died),
                    "identical": same,
                    "sha256_without_times": hashlib.sha256(stripped(folder / "killed").encode()).hexdigest(),
                    "minutes": round((time.monotonic() - began) / 60, 1),
                    "landed": died,
                }
            )
            print({key: value for key, value in found[-1].items() if key != "landed"}, flush=True)
        path.write_text(json.dumps(sorted(found, key=lambda run: run["jobs"]), indent=1) + "\n")
    if len({run["sha256_without_times"] for run in found}) > 1 or not all(run["identical"] for run in found):
        raise SystemExit("The results differ.")


if __name__ == "__main__":
    main()
