"""A signal ends a real run while a victim is trained and while reports are written, and the run goes on afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.test_stopping import SAID, _children, _ends, _listen

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="POSIX signals and /proc")

# holds the run where a report's text is written and has no name yet
HELD = """
import os, sys, time
from pathlib import Path

sync = os.fsync
def hold(number):
    sync(number)
    if os.environ.get("HOLD_AT", "nothing") in os.readlink(f"/proc/self/fd/{number}"):
        Path("ready").touch()
        time.sleep(100)
os.fsync = hold
from art_divqat.cli import main
sys.argv = ["art-divqat", *sys.argv[1:]]
main()
"""


def command(root: Path, epochs: int, jobs: int) -> list[str]:
    (root / "config.yaml").write_text(
        f"victim_recipe: {{epochs: {epochs}}}\nthief_recipe: {{epochs: 1}}\nevasion: {{images: 0}}\n"
    )
    options = ["--victim", "standard", "--limit", "150", "--budget", "30", "--seeds", "1", "--answers", "soft"]
    options += ["--model", "lenet5", "--query-pool", "in-distribution", "--jobs", str(jobs), "--quiet"]
    return ["evaluate", *options, "--config", "config.yaml", "--output", "run"]


@contextlib.contextmanager
def started(root: Path, arguments: list[str], hold_at: str = "nothing") -> Iterator[subprocess.Popen[str]]:
    with (root / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", HELD, *arguments],
            cwd=root,
            env={**os.environ, "XDG_CACHE_HOME": str(root / "cache"), "HOLD_AT": hold_at},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
            start_new_session=True,
            preexec_fn=_listen,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(process: subprocess.Popen[str], root: Path, path: str) -> None:
    deadline = time.monotonic() + 240
    while not (root / path).exists():
        assert process.poll() is None, (root / "stderr").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def goes_on(root: Path, arguments: list[str]) -> None:
    with started(root, arguments) as process:
        assert process.wait(timeout=300) == 0, (root / "stderr").read_text()
    assert (root / "stderr").read_text() == ""
    assert json.loads((root / "run" / "results.json").read_text())["cells"]
    assert (root / "run" / "report.html").read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize(
    ("jobs", "number", "delay"),
    [
        (1, signal.SIGTERM, 2.0),
        (1, signal.SIGHUP, 0.2),
        (1, signal.SIGINT, 1.0),
        (2, signal.SIGTERM, 5.0),
        (2, signal.SIGHUP, 0.3),
        (2, signal.SIGINT, 8.0),
    ],
)
def test_while_a_victim_is_trained(tmp_path: Path, jobs: int, number: int, delay: float) -> None:
    arguments = command(tmp_path, 100_000, jobs)
    with started(tmp_path, arguments) as process:
        # after its first line the run trains, for longer than any test
        wait_for(process, tmp_path, "run/journal.jsonl")
        time.sleep(delay)
        workers = _children(process.pid)
        assert jobs == 1 or workers
        os.kill(process.pid, number)
        _ends(process, workers, tmp_path, number)
    assert not list((tmp_path / "run").glob("report*"))
    assert not list((tmp_path / "cache").rglob("weights.safetensors")), "half a victim was kept"


@pytest.mark.parametrize(
    ("name", "number"), [("results.json", signal.SIGINT), ("report.md", signal.SIGTERM), ("report.html", signal.SIGHUP)]
)
def test_while_reports_are_written(tmp_path: Path, name: str, number: int) -> None:
    arguments = command(tmp_path, 1, 1)
    with started(tmp_path, arguments, hold_at=f".{name}.") as process:
        wait_for(process, tmp_path, "ready")
        os.kill(process.pid, number)
        _ends(process, set(), tmp_path, number)
    run = tmp_path / "run"
    assert not (run / name).exists()
    assert not [entry.name for entry in run.iterdir() if name in entry.name], "half a file stays"
    assert (tmp_path / "stderr").read_text() == SAID
    goes_on(tmp_path, arguments)


def test_a_run_goes_on_after_its_training_was_stopped(tmp_path: Path) -> None:
    arguments = command(tmp_path, 400, 1)
    with started(tmp_path, arguments) as process:
        wait_for(process, tmp_path, "run/journal.jsonl")
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGTERM)
        _ends(process, set(), tmp_path, signal.SIGTERM)
    goes_on(tmp_path, arguments)
