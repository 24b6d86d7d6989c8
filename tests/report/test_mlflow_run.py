"""A run in MLflow holds what its results say: read back by MLflow's own client from a folder of this test's."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.builders import make_results
from typer.testing import CliRunner

import art_divqat
from art_divqat.cli.app import app
from art_divqat.errors import MissingExtraError, UserError
from art_divqat.outcome import AuditResult
from art_divqat.report.mlflow_run import _key

STUDY = Path(__file__).parents[2] / "evaluations" / "studies" / "mnist-one-seed"


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'runs.db'}")
    yield mlflow
    mlflow.set_tracking_uri(before)


def test_a_run_is_read_back_as_it_was(mlflow: Any, tmp_path: Path) -> None:
    loaded = art_divqat.load(STUDY)
    client = mlflow.MlflowClient()
    run_id = loaded.log_to_mlflow()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "mnist-one-seed"
    assert run.data.params["dataset"] == loaded.config["dataset"]
    assert json.loads(run.data.params["victims"]) == list(loaded.config["victims"])
    assert run.data.tags["art-divqat.finding"] == loaded.finding == run.data.tags["mlflow.note.content"]
    assert run.data.tags["art-divqat.tool.version"] == loaded.tool["version"]
    assert run.data.tags["art-divqat.rating"] == loaded.rating
    for row in loaded.summary:
        for name, estimate in row.metrics.items():
            for key, value in ((name, estimate.mean), (f"{name}.low", estimate.low), (f"{name}.high", estimate.high)):
                kept = {m.step: m.value for m in client.get_metric_history(run_id, _key(row, key))}
                assert kept.get(row.budget) == value
    assert {file.path for file in client.list_artifacts(run_id)} >= {
        "results.json",
        "report.html",
        "report.md",
        "journal.jsonl",
    }
    copy = Path(client.download_artifacts(run_id, "report.md", str(tmp_path)))
    assert copy.read_text("utf-8") == (STUDY / "report.md").read_text("utf-8")


def test_results_without_a_folder_are_a_child_of_the_run_that_is_open(mlflow: Any) -> None:
    result = AuditResult.of(make_results(attacks=("knockoff", "scout"), answers=("soft", "hard")), None)
    with mlflow.start_run() as outer:
        run_id = result.log_to_mlflow()
        assert mlflow.active_run().info.run_id == outer.info.run_id
    run = mlflow.MlflowClient().get_run(run_id)
    assert run.data.tags["mlflow.parentRunId"] == outer.info.run_id
    assert len({key.rpartition("/")[0] for key in run.data.metrics}) == len(
        {(row.victim, row.defence, row.attack, row.answers) for row in result.summary}
    )


def test_the_command_prints_the_id_and_refuses_what_is_no_run(mlflow: Any, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["mlflow", str(STUDY)])
    assert mlflow.MlflowClient().get_run(done.stdout.strip()).info.status == "FINISHED"
    refused = CliRunner().invoke(app, ["mlflow", str(tmp_path / "nothing")])
    assert isinstance(refused.exception, UserError)
    assert "expected a run folder" in str(refused.exception)


def test_a_store_that_cannot_be_written_is_one_sentence(mlflow: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'file' / 'runs.db'}")
    with pytest.raises(UserError, match=r"MLflow cannot keep the run at sqlite:.*MLFLOW_TRACKING_URI") as refused:
        art_divqat.load(STUDY).log_to_mlflow()
    assert "\n" not in str(refused.value)


def test_without_mlflow_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "mlflow":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'art-divqat\[mlflow\]'"):
        art_divqat.load(STUDY).log_to_mlflow()


def test_names_are_such_as_mlflow_takes_and_stay_apart() -> None:
    row = art_divqat.load(STUDY).summary[0]
    long = [row.model_copy(update={"victim": "external:" + "x" * 300 + end}) for end in "ab"]
    keys = [_key(each, "agreement.low") for each in long]
    assert len(set(keys)) == 2
    assert all(len(key) <= 250 and key.endswith("/agreement.low") for key in keys)
    odd = row.model_copy(update={"defence": "noise:std=0.1,seed=2+round/é"})
    assert _key(odd, "agreement").split("/")[1] == "noise:std_0.1_seed_2_round_é"
