"""Cells on an engine, where no Ray is installed: what is refused beforehand, and what a pool makes of Ray's answers."""

from __future__ import annotations

import functools
import logging
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from art_divqat import audit_model
from art_divqat.api import prepare
from art_divqat.audit.environment import resolve_device
from art_divqat.audit.executor import EngineJob
from art_divqat.audit.ray_pool import RayPool, versions
from art_divqat.audit.tasks import CheckAndDescribe
from art_divqat.errors import LostWorkerError, MissingExtraError, UserError
from art_divqat.plan.config import make_config
from art_divqat.plan.presets import resolve
from art_divqat.victims.external.settings import model_at


class RayError(Exception):
    """As Ray's."""


class RayTaskError(RayError):
    """As Ray's."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("a traceback\nof many lines")
        self.cause = cause


class FakeRay(SimpleNamespace):
    """As much of Ray as a pool uses; tasks are performed at once, in this process."""

    def __init__(self, answer: Callable[..., Any] | None = None, cpus: int = 4) -> None:
        super().__init__(exceptions=SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError))
        self.cloudpickle = pickle
        self.options: list[dict[str, Any]] = []
        self.most = self.left = 0
        self._answer = answer
        self._cpus = cpus

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": self._cpus}}, {"Alive": False, "Resources": {"CPU": 99, "GPU": 9}}]

    def remote(self, function: Callable[..., Any]) -> Any:
        def options(**given: Any) -> Any:
            self.options.append(given)
            return SimpleNamespace(remote=lambda *values: functools.partial(self._answer or function, *values))

        return SimpleNamespace(options=options)

    def wait(self, references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        self.most = max(self.most, len(references))
        return references[-num_returns:], references[:-num_returns]

    def get(self, reference: Any) -> Any:
        try:
            return reference()
        except RayError:
            raise
        except Exception as error:
            raise RayTaskError(error) from None

    def cancel(self, reference: Any, force: bool) -> None:
        assert force
        self.left += 1


def _twice(number: int) -> int:
    return 2 * number


def _refuse() -> None:
    raise UserError("refused")


def calls(*numbers: int) -> list[tuple[Callable[[], Any], str]]:
    return [(functools.partial(_twice, number), f"cell {number}") for number in numbers]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeRay], FakeRay]:
    def install(ray: FakeRay) -> FakeRay:
        monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
        return ray

    return install


@pytest.mark.parametrize(("most", "seen"), [(None, 5), (2, 2)])
def test_calls_are_performed_with_what_they_take(install: Any, most: int | None, seen: int) -> None:
    ray = install(FakeRay())
    pool = RayPool(None, threads=3, gpus=0.25, most=most)
    assert dict(pool.run(calls(*range(5)))) == {number: 2 * number for number in range(5)}
    assert ray.most == seen
    for number, given in enumerate(ray.options):
        assert (given["num_cpus"], given["num_gpus"], given["name"]) == (3, 0.25, f"cell {number}")
        assert given["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "3"
        assert given["max_retries"] > 0
    pool.end()
    assert ray.left == 0


def test_what_is_under_way_is_cancelled(install: Any) -> None:
    ray = install(FakeRay())
    pool = RayPool(None, threads=1)
    assert next(pool.run(calls(1, 2, 3)))[1] == 6
    pool.end()
    assert ray.left == 2


def test_an_error_of_a_call_comes_through_without_its_traceback(install: Any) -> None:
    install(FakeRay())
    with pytest.raises(UserError, match=r"^refused$"):
        list(RayPool(None, threads=1).run([(_refuse, "a cell")]))
    with pytest.raises(ZeroDivisionError):
        list(RayPool(None, threads=1).run([(_divide, "a cell")]))


def _divide() -> float:
    return 1 / len("")


def test_a_worker_that_is_lost_again_and_again_ends_the_run(install: Any) -> None:
    def lose(*values: Any) -> None:
        raise RayError("node died\nand more")

    install(FakeRay(lose))
    with pytest.raises(LostWorkerError, match=r"lost the worker of cell 7 and its 2 retries \(node died\)"):
        list(RayPool(None, threads=1).run(calls(7)))


@pytest.mark.parametrize("name", ["art-divqat", "torch", "numpy"])
@pytest.mark.parametrize("theirs", ["0.0.7", "none"])
def test_a_worker_with_another_version_of_anything_is_refused(install: Any, name: str, theirs: str) -> None:
    install(FakeRay(lambda expected, call: ("node7", {**expected, name: theirs}, None)))
    with pytest.raises(UserError) as error:
        list(RayPool(None, threads=1).run(calls(1)))
    assert f"The worker on node7 has {name} {theirs} and this machine has {versions()[name]}: " in str(error.value)


def test_no_machine_with_room_is_said(install: Any, caplog: pytest.LogCaptureFixture) -> None:
    install(FakeRay(cpus=2))
    with caplog.at_level(logging.WARNING):
        list(RayPool(None, threads=2).run(calls(1)))
        assert not caplog.records
        list(RayPool(None, threads=2, gpus=1).run(calls(1)))
        list(RayPool(None, threads=3).run(calls(1)))
    assert [record.message.split(" that ")[0] for record in caplog.records] == [
        "No machine of the engine has the 2 CPU and 1 GPU",
        "No machine of the engine has the 3 CPU",
    ]


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from art_divqat import evaluate

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"^executor='ray' needs Ray: pip install 'art-divqat\[ray\]'\.$"):
        evaluate(executor="ray", address="head:6379", output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_an_address_there_is_one_line(monkeypatch: pytest.MonkeyPatch, install: Any) -> None:
    ray = install(FakeRay())
    ray.is_initialized = lambda: False
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=r"^--executor ray needs an engine: give --address HOST:PORT"):
        list(RayPool(None, threads=1).run(calls(1)))
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(UserError, match="'nowhere' is none of an engine"):
        list(RayPool(None, threads=1).run(calls(1)))


def test_an_endpoint_is_asked_by_one_process() -> None:
    address = "http://127.0.0.1:1/model"
    options = {"dataset": "digits", "victims": [model_at(address)], "external": {"source": address}, "executor": "ray"}
    with pytest.raises(UserError, match=r"^An endpoint is asked by one process.*leave out executor='ray'\.$"):
        prepare(make_config(options))


def test_an_object_of_this_process_is_asked_by_it() -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    x, y = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(x / 16, y)
    with pytest.raises(UserError, match=r"an object of this process is asked by one process"):
        audit_model(model, "digits", executor="ray")


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [("auto", 0, "cpu"), ("cpu", 0, "cpu"), ("auto", 1, "cuda:0"), ("cuda", 0.5, "cuda:0"), ("cuda:3", 1, "cuda:0")],
)
def test_the_engine_gives_cells_their_gpus(device: str, gpus: float, expected: str) -> None:
    assert resolve_device(device, gpus) == expected


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 0), ("cuda:1", 0), ("cpu", 0.5), ("tpu", 0), ("gpu", 1)])
def test_a_device_that_the_engine_does_not_give_is_refused(device: str, gpus: float) -> None:
    with pytest.raises(UserError, match=f"evice '{device}'"):
        resolve_device(device, gpus)


@pytest.mark.parametrize("part", ["dataset", "pool"])
def test_a_machine_with_other_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.chdir(tmp_path)
    config = resolve(make_config({"limit": 60, "device": "cpu", "budgets": [10], "query_pool": "in-distribution"}))
    data = EngineJob(config, tmp_path / "store", tmp_path / "not here", None).perform(CheckAndDescribe())
    assert EngineJob(config, tmp_path / "store", tmp_path, data).perform(CheckAndDescribe()) == data
    other = {**data, part: {**data[part], "checksum": "0" * 32}}
    with pytest.raises(UserError, match=f"^The {part} of the run has the checksum 0{{32}}, and on .* it has "):
        EngineJob(config, tmp_path / "store", tmp_path, other).perform(CheckAndDescribe())
