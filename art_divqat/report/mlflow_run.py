"""A run logged to MLflow, if that is installed: configuration, metrics over the budget, finding and report files."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from art_divqat._files import first_line
from art_divqat.errors import MissingExtraError, UserError
from art_divqat.report.files import render
from art_divqat.report.findings import finding
from art_divqat.report.rating import Thresholds, overall_rating
from art_divqat.report.results_view import ResultsView
from art_divqat.results.schema import Results, SummaryRow

_ARTIFACTS = {"results.json": "json", "report.md": "md", "report.html": "html"}
# MLflow's limits: of a name, of a parameter's and a tag's text, of a batch
_LONGEST_KEY, _LONGEST_TEXT, _BATCH = 250, 5000, 1000
_NOT_IN_KEYS = re.compile(r"[^\w.:\- ]")


def log_run(results: Results, folder: Path | None) -> str:
    """Log the results as a new run of MLflow's, in the experiment and at the server that MLflow is set to.

    :param folder: the run folder, whose journal and configuration are artifacts too.
    :return: the id of MLflow's run.
    :raises MissingExtraError: without MLflow.
    :raises UserError: if MLflow cannot keep it.
    """
    try:
        import mlflow
    except ImportError:
        raise MissingExtraError(
            "Logging to MLflow needs the mlflow extra, which is not installed: pip install 'art-divqat[mlflow]'."
        ) from None
    files = {name: render(results, format) for name, format in _ARTIFACTS.items()}
    try:
        # beside a run that the caller has open, as its child
        with mlflow.start_run(run_name=folder.resolve().name if folder else None, nested=True) as run:
            mlflow.set_tags(_tags(results))
            mlflow.log_params({name: _text(value) for name, value in results.config.items()})
            _log_metrics(results, run.info.run_id)
            for name, text in files.items():
                mlflow.log_text(text, name)
            for name in ("journal.jsonl", "config.yaml"):
                if folder is not None and (folder / name).is_file():
                    mlflow.log_artifact(str(folder / name))
            return str(run.info.run_id)
    except Exception as error:
        # a store raises what its database, its server or its disk does
        raise UserError(
            f"MLflow cannot keep the run at {mlflow.get_tracking_uri()}: {first_line(error, 300)} Set "
            "MLFLOW_TRACKING_URI to a server or a database that can."
        ) from error


def _tags(results: Results) -> dict[str, str]:
    found = finding(results)
    tags = {
        # what MLflow shows as the description
        "mlflow.note.content": found,
        "art-divqat.finding": found,
        "art-divqat.rating": overall_rating(ResultsView(results), Thresholds()).name,
        "art-divqat.gate": "passed" if results.gate.passed else "failed",
        "art-divqat.flags": ", ".join(flag.name for flag in results.flags),
        "art-divqat.cells": f"{len(results.cells)} of {results.planned}",
        "art-divqat.started": results.started,
    }
    tools = {f"art-divqat.tool.{name}": value for name, value in results.tool.items()}
    return {name: _text(value) for name, value in (tags | tools).items()}


def _log_metrics(results: Results, run_id: str) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [
        Metric(_key(row, name), value, now, row.budget) for row in results.summary for name, value in _values(row)
    ]
    for start in range(0, len(metrics), _BATCH):
        MlflowClient().log_batch(run_id, metrics=metrics[start : start + _BATCH])


def _values(row: SummaryRow) -> Iterator[tuple[str, float]]:
    """Every mean by its name, and both ends of its interval where it has one."""
    for name, estimate in row.metrics.items():
        ends = {name: estimate.mean, f"{name}.low": estimate.low, f"{name}.high": estimate.high}
        yield from ((key, value) for key, value in ends.items() if value is not None)


def _key(row: SummaryRow, name: str) -> str:
    """VICTIM/DEFENCE/ATTACK/ANSWERS/METRIC, with `_` for what MLflow takes in no name.

    >>> row = SummaryRow(dataset="digits", victim="robust:epsilon=0.2", defence="none", attack="knockoff",
    ...     answers="soft", budget=100, n_seeds=1, metrics={})
    >>> _key(row, "agreement.low")
    'robust:epsilon_0.2/none/knockoff/soft/agreement.low'
    """
    group = (row.victim, row.defence, row.attack, row.answers)
    key = "/".join(_NOT_IN_KEYS.sub("_", part) for part in (*group, name))
    if len(key) <= _LONGEST_KEY:
        return key
    # what is cut off may be what tells two groups apart
    digest = hashlib.sha256("/".join(group).encode()).hexdigest()[:8]
    return f"{key[: _LONGEST_KEY - len(digest) - len(name) - 2]}-{digest}/{name}"


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
