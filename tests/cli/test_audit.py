"""Audits from end to end: a file, a live endpoint with faults, live objects from Python, a plan, two runs compared."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

import art_divqat
from art_divqat.api import evaluate, prepare
from art_divqat.cli.dry_run import show_plan
from art_divqat.errors import UserError
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.evaluation import ExtractionEvaluation
from art_divqat.models import build_model
from art_divqat.plan.config import make_config
from art_divqat.results.schema import TIMINGS, Results

ROOT = Path(art_divqat.__file__).parents[1]

OPTIONS: dict[str, Any] = {
    "budgets": (20, 40),
    "seeds": 2,
    "answers": ("soft",),
    "attacks": ("knockoff",),
    "query_pool": "in-distribution",
    "thief_model": "lenet5",
    "thief_recipe": {"epochs": 1},
    "evasion": {"images": 10, "steps": 2},
    "limit": 150,
    "control": False,
}


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "art_divqat", *arguments],
        cwd=cwd,
        env={**os.environ, "XDG_CACHE_HOME": str(cwd / "cache"), "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: clean(item) for key, item in value.items() if key not in (*TIMINGS, "output")}
    return [clean(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    from art_divqat.data import load_dataset

    data = load_dataset("digits", limit=600)
    classifier = RecipeClassifier(
        build_model("lenet5", (1, 8, 8), 10, seed=3), (1, 8, 8), 10, TrainingRecipe(epochs=12, learning_rate=3e-3)
    )
    classifier.fit(data.x_train, data.y_train)
    return classifier.model.eval()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, network: torch.nn.Module) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    torch.save(network.state_dict(), folder / "model.pt")
    torch.jit.trace(network, torch.rand(2, 1, 8, 8)).save(str(folder / "script.pt"))
    live = {"victims": ["external:name=Net,sha256=x0123456789abcdef"], "external": {}, "dataset": "digits"}
    (folder / "live.yaml").write_text(json.dumps(live))
    (folder / "tiny.yaml").write_text(json.dumps({key: OPTIONS[key] for key in ("thief_recipe", "evasion")}))
    return folder


TINY = [
    *("--data", "digits", "--limit", "150", "--budget", "20,40", "--seeds", "1", "--answers", "soft"),
    *("--attack", "knockoff", "--no-control"),
    *("--query-pool", "in-distribution", "--thief-model", "lenet5", "--config", "tiny.yaml", "--jobs", "1"),
]


def test_a_file_from_the_command_line(workspace: Path) -> None:
    gate = ("--fail-on", "agreement>=0")
    done = run("audit", "model.pt", "--model", "lenet5", *TINY, *gate, "--output", "run", "--json", cwd=workspace)
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    results = Results.model_validate_json(done.stdout)
    assert not results.gate.passed
    assert len(results.cells) == results.planned == 2
    assert results.cells[0].victim.startswith("external:name=model.pt,sha256=x")
    assert "victim_robust_accuracy" in results.cells[0].metrics
    assert results.cells[0].metrics["victim_accuracy"] > 0.7  # type: ignore[operator]
    assert str(workspace) not in (workspace / "run" / "results.json").read_text()

    first = (workspace / "run" / "config.yaml").read_text().splitlines()[0]
    command = first.partition("with: art-divqat ")[2].split()
    assert command == ["audit", "--config", "run/config.yaml"]
    again = run(*command, "--output", "again", "--json", cwd=workspace)
    assert again.returncode == 1, again.stderr
    assert clean(json.loads(again.stdout)) == clean(json.loads(done.stdout))

    same = run("compare", "run", "again", "--json", "--fail-on-worse", cwd=workspace)
    assert same.returncode == 0, same.stderr
    assert {change["verdict"] for change in json.loads(same.stdout)["changes"]} == {"cannot tell"}
    for output_format in ("html", "md", "sarif", "junit", "csv"):
        assert run("report", "run", "--format", output_format, cwd=workspace).returncode == 0


def test_trust_is_asked_for_and_told(workspace: Path) -> None:
    refused = run("audit", "script.pt", *TINY, "--output", "script", cwd=workspace)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "Add --trust-code" in refused.stderr
    assert not (workspace / "script").exists()
    done = run("audit", "script.pt", *TINY, "--output", "script", "--trust-code", cwd=workspace)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "Ran code of the model, as --trust-code allows: script.pt\n"
    assert "--config script/config.yaml --trust-code\n" in (workspace / "script" / "config.yaml").read_text()
    assert "audit --config $RUN/config.yaml" in (workspace / "script" / "report.md").read_text()
    assert "trust_code" not in (workspace / "script" / "config.yaml").read_text()
    (workspace / "sly.yaml").write_text("trust_code: true\n")
    sly = run("audit", "script.pt", "--data", "digits", "--config", "sly.yaml", cwd=workspace)
    assert sly.returncode == 2
    assert "grants no trust" in sly.stderr
    for plan in ((), ("--dry-run",)):
        given = ("--factory", "nowhere:build", "--trust-code", *plan, "--output", "lost")
        lost = run("audit", "model.pt", *TINY, *given, cwd=workspace)
        assert (lost.returncode, lost.stderr.count("\n")) == (2, 1)
        assert "--factory nowhere:build failed: ModuleNotFoundError" in lost.stderr


def test_the_plan_alone(workspace: Path) -> None:
    done = run("audit", "model.pt", "--model", "lenet5", *TINY, "--dry-run", "--json", "--output", "dry", cwd=workspace)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)["plan"]
    assert (plan["cells"], plan["attack_queries"], plan["endpoint_queries"]) == (2, 60, None)
    assert plan["seconds"] > 0
    shown = run("evaluate", "--seeds", "2", "--budget", "50", "--dry-run", cwd=workspace)
    assert "cells     8" in shown.stdout
    assert not (workspace / "dry").exists()
    assert not (workspace / "art-divqat-runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.pt", "--data", "digits"], "There is no model at 'nothing.pt'"),
        (["model.pt"], "Say what images the model takes with --data"),
        (["--data", "digits"], "Say which model to audit: give MODEL"),
        (["--data", "digits", "--config", "tiny.yaml"], "tiny.yaml names none: give MODEL"),
        (["--config", "live.yaml"], "art_divqat.audit_model(model, config='live.yaml')"),
        (["model.pt", "--data", "digits"], "say --model NAME"),
        (["model.pt", "--data", "digits", "--model", "small-cnn"], "does not fit the network"),
        (["model.pt", "--data", "digits", "--factory", "a:b"], "--trust-code"),
        (["model.pt", "--data", "digits", "--factory", "nocolon"], "external.factory"),
        (["model.pt", "--data", "digits", "--mean", "x"], "is not a number or three"),
        (["http://u:hunter2@h/", "--data", "digits"], "carries a credential"),
        (["http://127.0.0.1:9/v2/models/m", "--data", "digits", "--auth-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE"),
    ],
)
def test_bad_input_is_one_line(workspace: Path, arguments: list[str], message: str) -> None:
    done = run("audit", *arguments, cwd=workspace)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr


def test_an_endpoint_with_faults_gives_the_same_results_and_is_paid_once(
    network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("httpx")
    from support.oip_server import FAULTS, Server

    from art_divqat.estimators import remote

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(remote, "_FIRST_PAUSE_SECONDS", 0.001)

    def answer(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            # one image at a time: batches of other sizes round in other ways
            rows = [network(torch.from_numpy(image[None])).numpy()[0] for image in x]
        return softmax(np.array(rows), axis=1)

    found, bills = [], []
    # both runs must be of one address for their identities to agree, so one server answers well first, then badly
    with Server(answer) as server:
        for faults in ((), itertools.chain.from_iterable((fault, None) for fault in FAULTS * 3)):
            server.faults, server.paid = iter(faults), type(server.paid)()
            external = {"timeout": 0.5, "retries": 10}
            config = prepare(make_config({**OPTIONS, "victims": [server.v2], "external": external}))
            folder = tmp_path / f"run{len(found)}"
            found.append(clean(evaluate(config, folder, store=tmp_path / "store").model_dump(mode="json")))
            bills.append(server.paid)
        assert set(server.injected) == set(FAULTS)
        asked = sum(server.paid.values())
        evaluate(config, folder, store=tmp_path / "store")
        assert sum(server.paid.values()) == asked
    assert found[0] == found[1]
    assert bills[0] == bills[1]
    # an image is asked once; the first sixteen test images twice, to see whether the answers repeat
    assert sorted(bills[0].values())[-17:] == [1, *[2] * 16]
    metrics = found[0]["cells"][0]["metrics"]
    assert "transfer_attack_success" in metrics
    assert not {"victim_robust_accuracy", "transfer_robust_accuracy", "latency_us"} & set(metrics)


@pytest.mark.parametrize("form", ["labels", "json labels", "rounded", "top"])
def test_an_endpoint_that_leaves_something_out(
    form: str, network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pytest.importorskip("httpx")
    from support.oip_server import Server

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def answer(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            rows = softmax(network(torch.from_numpy(x)).numpy(), axis=1)
        if form == "rounded":
            return rows.round(2)
        return rows.argmax(axis=1) if form != "top" else np.where(rows >= np.sort(rows, axis=1)[:, [-3]], rows, 0)

    notes = {"rounded": "answers are rounded to 2 decimals", "top": "top 3 of 10"}.get(form, "labels only")
    with Server(answer) as server:
        options = {**OPTIONS, "budgets": (20,), "seeds": 1, "answers": ("soft", "hard"), "evasion": {"images": 0}}
        address = server.base if form.startswith("json") else server.v2
        config = prepare(make_config({**options, "victims": [address]}))
        show_plan(config, json_output=False, folder=tmp_path / "run")
        shown = capsys.readouterr().out
        assert f"outputs   10 probabilities; {notes}" in shown
        assert "answers hard, since there are labels only" in shown or notes != "labels only"
        asked = server.paid.copy()
        assert 0 < sum(asked.values()) <= 128 + 16
        results = evaluate(config, tmp_path / "run", store=tmp_path / "store")
        # what the plan asked is not asked again
        assert all(server.paid[image] == count for image, count in asked.items())
    assert {cell.answers for cell in results.cells} == ({"hard"} if notes == "labels only" else {"soft", "hard"})
    assert results.data["model"]["answers"][0] == notes
    assert notes in (tmp_path / "run" / "report.md").read_text()


def test_live_objects_from_python(network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LogisticRegression

    from art_divqat.data import load_dataset

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = load_dataset("digits")
    classifier = RecipeClassifier(network, (1, 8, 8), 10, TrainingRecipe(epochs=1))
    one = art_divqat.audit_model(classifier, "digits", output=tmp_path / "art", **OPTIONS)
    assert one.cells[0].victim.startswith("external:name=RecipeClassifier,")
    assert "victim_robust_accuracy" in one.cells[0].metrics
    assert one.data["model"]["kind"] == "object"
    config = tmp_path / "art" / "config.yaml"
    assert f"art_divqat.audit_model(model, config={str(config)!r})" in config.read_text().splitlines()[0]
    assert "with that object" in (tmp_path / "art" / "report.md").read_text()
    again = art_divqat.audit_model(classifier, config=config, output=tmp_path / "again")
    assert clean(again.model_dump(mode="json")) == clean(one.model_dump(mode="json"))
    other = ExtractionEvaluation("digits", output=tmp_path / "module", **OPTIONS).evaluate(network)
    for first, second in zip(one.cells, other.cells, strict=True):
        assert first.metrics["agreement"] == second.metrics["agreement"]

    estimator = LogisticRegression(max_iter=200).fit(data.x_train.reshape(len(data.x_train), -1), data.y_train)
    arrays = (np.concatenate([data.x_train, data.x_test]), np.concatenate([data.y_train, data.y_test]))
    third = art_divqat.audit_model(estimator, arrays, output=tmp_path / "sk", **OPTIONS)
    assert len(third.cells) == 4
    assert "victim_robust_accuracy" not in third.cells[0].metrics
    with pytest.raises(UserError, match="cannot be audited"):
        art_divqat.audit_model(object(), "digits", **OPTIONS)


def test_the_doctor(workspace: Path) -> None:
    done = run("doctor", cwd=workspace)
    assert done.returncode == 0, done.stdout
    for name in ("torch", "quantization engines", "devices", "cache"):
        assert name in done.stdout


def test_the_doctor_survives_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from art_divqat.cli import doctor

    monkeypatch.setitem(doctor._EXTRAS, "no-such-package", ("no_such", "onnx", "nothing"))
    monkeypatch.setitem(doctor._REQUIRED, "torch", "no_such_module")
    monkeypatch.setattr(doctor, "_engines", lambda: 1 / 0)
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["no-such-package"].state == "note"
    assert found["torch"].state == "problem"
    assert found["quantization engines"].state == "problem"
