"""`evaluate --device cuda` from end to end: robust and quantized victims, twice the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.cuda

CONFIG = {
    "victim_recipe": {"epochs": 3, "precision": "bfloat16", "augmentation": "crop-flip", "cuda_graphs": True},
    "thief_recipe": {"epochs": 3, "optimizer": "sgd", "learning_rate": 0.02, "warm_up": 0.1},
    "evasion": {"images": 20, "steps": 3},
}
COMMAND = [
    *("evaluate", "--dataset", "digits", "--limit", "200", "--victim", "robust", "--victim", "divqat"),
    *("--attack", "knockoff", "--budget", "50", "--seeds", "1", "--answers", "soft"),
    *("--model", "small-cnn", "--query-pool", "in-distribution", "--jobs", "1", "--json"),
]


def evaluated(folder: Path, device: str, name: str) -> dict[str, Any]:
    """The results of a run with a store of its own."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "art_divqat", *COMMAND, "--config", "config.json", "--device", device, "--output", name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(folder / f"cache-{name}")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_two_runs_on_a_gpu_give_the_same_numbers(device: str, tmp_path: Path) -> None:
    first, second = (evaluated(tmp_path, device, name) for name in ("one", "two"))
    assert first["config"]["device"].partition(":")[0] == device.partition(":")[0]
    assert first["config"]["victim_recipe"]["precision"] == "bfloat16"
    assert len(first["cells"]) == len(second["cells"]) > 0
    unlike = ("latency_us", "seconds")
    for one, other in zip(first["cells"], second["cells"], strict=True):
        for metric, value in one["metrics"].items():
            if metric not in unlike:
                assert value == other["metrics"][metric], (one["victim"], one["attack"], metric)
