"""Runs on a Ray engine of loopback processes, a head and two machines: the results of --jobs 1, whatever is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from art_divqat import __version__
from art_divqat.attacks.extraction.registry import ATTACKS
from art_divqat.audit.ray_pool import check_address, versions
from art_divqat.cli.stopping import MESSAGE
from art_divqat.errors import UserError
from art_divqat.results.journal import Journal
from evaluations.benchmarks.kill.killing import environment, stripped

# with the plug-in of tests/plugin_package, where that is installed
PLUGGED = "contrast-first" if "contrast-first" in ATTACKS else "scout"
CELLS = 8
STARTED = r"\d{4}-\d\d-\d\dT[\d:]+\+00:00"
CELL = f"(knockoff|{PLUGGED}) "
CONFIG = f"""
limit: 100
victims: [standard]
attacks: [knockoff, {PLUGGED}]
answers: [soft]
budgets: [20, 40]
seeds: 2
model: lenet5
thief_model: lenet5
query_pool: in-distribution
victim_recipe: {{epochs: 1}}
thief_recipe: {{epochs: 1}}
evasion: {{images: 10, steps: 2}}
"""


@pytest.mark.parametrize("address", ["node1", "node1:", ":6379", "node 1:6379", "ray://node1:10001", "http://node1:80"])
def test_what_is_no_address_is_one_line(address: str) -> None:
    with pytest.raises(UserError, match=r"^--address .* expected HOST:PORT of its head") as error:
        check_address(address)
    assert "\n" not in str(error.value)


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for unreachable in (address, "127.0.0.1:99999", "no-such-host.invalid:6379"):
        began = time.monotonic()
        with pytest.raises(UserError, match=f"^No engine can be reached at {unreachable} "):
            check_address(unreachable)
        assert time.monotonic() - began < 20


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"-ERR\r\n"])
def test_what_is_no_engine_is_refused(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(UserError, match="is no Ray engine"):
            check_address(f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()


def test_versions_are_of_all_that_numbers_depend_on() -> None:
    assert {"art-divqat", "torch", "numpy", "adversarial-robustness-toolbox"} <= set(versions())
    assert "none" not in versions().values()


def evaluate(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start the command."""
    (folder / "c.yaml").write_text(CONFIG)
    return subprocess.Popen(
        [sys.executable, "-m", "art_divqat", "evaluate", "--config", "c.yaml", "--quiet", *options],
        cwd=folder,
        env=environment(folder, "cache"),
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str], timeout: float = 300) -> tuple[int, str]:
    """The exit code, and what was said."""
    _, said = process.communicate(timeout=timeout)
    return process.returncode, said


def check_done(process: subprocess.Popen[str]) -> None:
    code, said = finish(process)
    assert (code, said) == (0, ""), said


class Engine:
    """A cluster of processes on this machine: a head that performs nothing and two machines of one core."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster()
        self.add(num_cpus=0, include_dashboard=False)
        self.machines = [self.add(num_cpus=1) for _ in range(2)]
        self.address: str = self.cluster.address
        self.started: list[subprocess.Popen[str]] = []

    def add(self, **settings: Any) -> Any:
        for tries_left in (2, 1, 0):
            try:
                return self.cluster.add_node(object_store_memory=80_000_000, include_log_monitor=False, **settings)
            except Exception:
                # where other work is under way, Ray may find that its own processes take too long to start
                if not tries_left:
                    raise
        return None

    def run(self, folder: Path, output: str, *options: str) -> subprocess.Popen[str]:
        given = ["--executor", "ray", "--address", self.address, "--output", output, *options]
        self.started.append(evaluate(folder, *given))
        return self.started[-1]

    def performing(self, pattern: str, machine: Any = None) -> list[int]:
        """The worker processes that perform a task of this description, on one machine or on any."""
        found = []
        for node in self.cluster.list_all_nodes() if machine is None else [machine]:
            raylet = node.all_processes["raylet"][0].process.pid
            for child in Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split():
                try:
                    title = Path(f"/proc/{child}/cmdline").read_text().strip("\0 ")
                except OSError:
                    continue
                if re.match(rf"ray::{pattern}", title):
                    found.append(int(child))
        return found


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'art-divqat[ray]'")
    if sys.platform != "linux":
        pytest.skip("the processes of an engine are found in /proc")
    with pytest.MonkeyPatch.context() as patch:
        # it reports to nobody, and its workers need not wait for whatever else runs here, as Ray has it
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        engine = Engine()
        yield engine
        for process in engine.started:
            process.kill()
        engine.cluster.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process that every other is compared with."""
    folder = tmp_path_factory.mktemp("whole")
    code, said = finish(evaluate(folder, "--jobs", "1", "--output", "run"))
    assert code == 0, said
    return folder / "run"


def records(run: Path) -> list[dict[str, Any]]:
    """The journal without what depends on speed, in the order of cells."""
    _, lines = Journal(run / "journal.jsonl").read()
    plain = json.loads(json.dumps(lines))
    for line in plain:
        del line["seconds"], line["metrics"]["latency_us"]
    return sorted(plain, key=lambda line: json.dumps(line["cell"], sort_keys=True))


def check_same(run: Path, whole: Path) -> None:
    assert len(records(run)) == CELLS
    assert records(run) == records(whole)
    assert stripped(run) == stripped(whole)
    pages = [re.sub(STARTED, "", (folder / "report.md").read_text(encoding="utf-8")) for folder in (run, whole)]
    assert pages[0] == pages[1]


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 200
    while not (value := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


@pytest.mark.slow
def test_it_is_the_run_of_one_process(engine: Engine, whole: Path, tmp_path: Path) -> None:
    process = engine.run(tmp_path, "run")
    workers = set()
    while process.poll() is None:
        workers |= set(engine.performing(CELL))
        time.sleep(0.05)
    check_done(process)
    check_same(tmp_path / "run", whole)
    assert len(workers) >= 2


@pytest.mark.slow
def test_a_worker_of_another_version_is_refused(engine: Engine, tmp_path: Path) -> None:
    other = tmp_path / "other" / "art_divqat"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("__version__ = '0.0.7'\n")
    # the only machine with room for a cell of two threads
    machine = engine.add(num_cpus=2, env_vars={"PYTHONPATH": str(other.parent)})
    try:
        code, said = finish(engine.run(tmp_path, "run", "--threads", "2"))
    finally:
        engine.cluster.remove_node(machine)
    assert code == 2
    assert re.fullmatch(
        rf"art-divqat: The worker on \S+ has art-divqat 0\.0\.7 and this machine has {re.escape(__version__)}: install "
        r"the same version on every machine of the engine\.\n",
        said,
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_workers_machines_and_drivers_may_be_lost(engine: Engine, whole: Path, tmp_path: Path) -> None:
    journal = tmp_path / "run" / "journal.jsonl"

    def lines() -> int:
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    # a worker that trains a victim, one that measures a cell, and then the driver, politely
    process = engine.run(tmp_path, "run")
    for work in ("victim", CELL):
        os.kill(wait_for(lambda work=work: engine.performing(work), process)[0], signal.SIGKILL)
    wait_for(lambda: lines() >= 2, process)
    process.send_signal(signal.SIGTERM)
    stopped = time.monotonic()
    code, said = finish(process)
    assert time.monotonic() - stopped < 10
    assert (code, said) == (128 + signal.SIGTERM, f"art-divqat: {MESSAGE}\n")
    # the driver, at once
    process = engine.run(tmp_path, "run")
    wait_for(lambda: engine.performing(f"(victim|{CELL})"), process)
    process.kill()
    assert finish(process) == (-signal.SIGKILL, "")
    # the engine ends what a driver had under way
    deadline = time.monotonic() + 30
    while engine.performing(f"(victim|{CELL})"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # a machine, with its worker and its object store
    process = engine.run(tmp_path, "run")
    machine = engine.machines.pop()
    wait_for(lambda: engine.performing(CELL, machine), process)
    engine.cluster.remove_node(machine, allow_graceful=False)
    check_done(process)
    check_same(tmp_path / "run", whole)
