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

from art_divqat.audit.ray_pool import check_address, versions
from art_divqat.errors import UserError
from art_divqat.results.journal import Journal
from evaluations.benchmarks.kill.killing import environment, stripped

CELLS = 8
CONFIG = """
limit: 100
victims: [standard]
attacks: [knockoff, random]
answers: [soft]
budgets: [20, 40]
seeds: 2
model: lenet5
thief_model: lenet5
query_pool: in-distribution
victim_recipe: {epochs: 1}
thief_recipe: {epochs: 1}
evasion: {images: 10, steps: 2}
"""
PACKAGE = Path(__file__).parents[2] / "art_divqat"


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


def evaluate(folder: Path, *options: str, config: str = CONFIG, **popen: Any) -> subprocess.Popen[str]:
    (folder / "c.yaml").write_text(config)
    command = [sys.executable, "-m", "art_divqat", "evaluate", "--config", "c.yaml", "--quiet", *options]
    given = {"cwd": folder, "env": environment(folder, "cache"), "text": True, "stderr": subprocess.PIPE, **popen}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, **given)


def finish(process: subprocess.Popen[str], timeout: float = 150) -> tuple[int, str]:
    """The exit code, and what was said."""
    _, said = process.communicate(timeout=timeout)
    return process.returncode, said


class Engine:
    """A cluster of processes on this machine: a head that performs nothing and two machines of one core."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster()
        self.add(num_cpus=0)
        for _ in range(2):
            self.add(num_cpus=1)
        self.address: str = self.cluster.address

    def add(self, **settings: Any) -> Any:
        if not self.cluster.worker_nodes and self.cluster.head_node is None:
            settings["include_dashboard"] = False
        return self.cluster.add_node(object_store_memory=80_000_000, **settings)

    def run(self, folder: Path, output: str, *options: str, **popen: Any) -> subprocess.Popen[str]:
        given = ["--executor", "ray", "--address", self.address, "--output", output, *options]
        return evaluate(folder, *given, **popen)

    def performing(self, pattern: str) -> list[int]:
        """The worker processes that perform a task of this description."""
        found = []
        for node in self.cluster.list_all_nodes():
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
    engine = Engine()
    yield engine
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
    # the page has the rounded seconds of a cell in no table
    assert (run / "config.yaml").read_text().replace("executor: ray\n", "") != ""


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 100
    while not (value := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def test_it_is_the_run_of_one_process(engine: Engine, whole: Path, tmp_path: Path) -> None:
    process = engine.run(tmp_path, "run")
    machines = set()
    while process.poll() is None:
        machines |= set(engine.performing("(knockoff|random)"))
        time.sleep(0.05)
    assert finish(process) == (0, "")
    check_same(tmp_path / "run", whole)
    assert len(machines) >= 2


@pytest.mark.parametrize("work", ["victim", "knockoff"])
def test_what_a_killed_worker_did_is_done_elsewhere(engine: Engine, whole: Path, tmp_path: Path, work: str) -> None:
    process = engine.run(tmp_path, "run")
    os.kill(wait_for(lambda: engine.performing(work), process)[0], signal.SIGKILL)
    assert finish(process) == (0, "")
    check_same(tmp_path / "run", whole)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_driver_that_is_stopped_goes_on_where_it_was(
    engine: Engine, whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = engine.run(tmp_path, "run")
    journal = tmp_path / "run" / "journal.jsonl"
    wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 2, process)
    process.send_signal(number)
    stopped = time.monotonic()
    code, said = finish(process)
    assert time.monotonic() - stopped < 10
    if number == signal.SIGKILL:
        assert code == -number
    else:
        assert code == 128 + number
        assert said == "art-divqat: Interrupted. What was finished is kept: the same command goes on from there.\n"
    held = len(records(tmp_path / "run"))
    assert 2 <= held <= CELLS
    # the engine ends what the driver had under way
    deadline = time.monotonic() + 30
    while engine.performing("(victim|knockoff|random)"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert finish(engine.run(tmp_path, "run")) == (0, "")
    check_same(tmp_path / "run", whole)
