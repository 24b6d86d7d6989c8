"""Services that answer with labels alone and have more classes than the photographs that they are audited with."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from art_divqat.api import evaluate, prepare
from art_divqat.errors import UserError
from art_divqat.estimators.named_answers import class_id
from art_divqat.plan.config import make_config, read_config
from art_divqat.plan.spelling import in_python
from art_divqat.victims.external.classes import stated_classes
from art_divqat.victims.external.settings import ExternalModel

pytest.importorskip("httpx")

# the service's classes are words in its own order; the shop has photographs of four of its digits
ALL = [f"thing {number}" for number in range(30)]
KNOWN = [3, 27, 11, 0, 19, 8, 23, 5, 14, 29]
SHOP = (1, 4, 6, 8)
OPTIONS: dict[str, Any] = {
    "budgets": [80],
    "seeds": 1,
    "attacks": ["knockoff"],
    "query_pool": "in-distribution",
    "thief_model": "lenet5",
    "thief_recipe": {"epochs": 25, "batch_size": 8},
    "evasion": {"images": 0},
    "control": False,
}


def images() -> tuple[np.ndarray, np.ndarray]:
    bunch = load_digits()
    return (bunch.images / 16).astype("float32")[:, None], bunch.target


@contextmanager
def service(say: Callable[[int], Any]) -> Iterator[str]:
    """A server that knows ten digits as classes of its own and answers with `say` of the class alone."""
    x, y = images()
    model = LogisticRegression(max_iter=200).fit(x[:900].reshape(900, -1), y[:900])

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            asked = np.array(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"])
            digits = model.predict(asked.reshape(len(asked), -1))
            content = json.dumps({"predictions": [say(KNOWN[digit]) for digit in digits]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/predict"
    finally:
        server.shutdown()
        server.server_close()


def shop(folder: Path, names: list[str]) -> str:
    x, y = images()
    rows = np.flatnonzero(np.isin(y, SHOP) & (np.arange(len(y)) >= 900))
    labels = np.searchsorted(SHOP, y[rows])
    np.savez(folder / "shop.npz", x=x[rows], y=labels, class_names=np.array(names))
    return f"npz:{folder / 'shop.npz'}"


@pytest.mark.parametrize(
    ("say", "names", "classes"),
    [
        (lambda number: number, [str(KNOWN[digit]) for digit in SHOP], 30),
        (lambda number: str(number), [str(KNOWN[digit]) for digit in SHOP], 30),
        (lambda number: ALL[number], [ALL[KNOWN[digit]] for digit in SHOP], ALL),
        (lambda number: [{"label": ALL[number], "score": 1.0}], [ALL[KNOWN[digit]] for digit in SHOP], ALL),
    ],
    ids=["ids", "ids as text", "names", "names with scores"],
)
def test_the_number_of_classes_is_the_models(
    say: Any, names: list[str], classes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    data = shop(tmp_path, names)
    with service(say) as address:
        unsaid = prepare(make_config({**OPTIONS, "victims": [address], "dataset": data}))
        with pytest.raises(UserError, match=r"external=\{'classes'"):
            evaluate(unsaid, tmp_path / "unsaid", store=tmp_path / "store")
        said = {**OPTIONS, "victims": [address], "dataset": data, "external": {"classes": classes}}
        results = [
            evaluate(prepare(make_config(said)), tmp_path / run, store=tmp_path / "store") for run in ("one", "two")
        ]
        again = read_config(tmp_path / "one" / "config.yaml")
        results.append(evaluate(prepare(make_config(again)), tmp_path / "three", store=tmp_path / "store"))
    model = results[0].data["model"]
    assert (model["classes"], model["data_classes"], model["classes_matched"]) == (30, 4, True)
    assert model["labels_only"]
    assert model["probe_right"] > 0.8 * model["probe_images"]
    found = [[cell.metrics for cell in each.cells if cell.victim.startswith("external")] for each in results]
    assert found[0][0]["agreement"] > 0.5
    assert found[0][0]["victim_accuracy"] > 0.8
    for name in ("agreement", "thief_accuracy", "victim_accuracy"):
        assert len({each[0][name] for each in found}) == 1, "answers were numbered otherwise the second time"


def test_numbers_are_the_models_where_it_has_more_classes_than_names() -> None:
    assert class_id("7", 3, ("3", "7", "9")) == 1
    assert class_id("7", 20, ("3", "7", "9")) == 7
    assert class_id("owl", 20, ("cat", "owl")) == 1


@pytest.mark.parametrize(
    ("classes", "names", "message"),
    [
        (3, ("a", "b", "c", "d"), "--classes says 3; the data has 4"),
        (("a", "b", "x"), ("a", "c"), "names 3 classes, and none is 'c'"),
        (("a", "b", "x"), (), "the data has no names"),
    ],
)
def test_classes_that_do_not_fit_the_data(classes: Any, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        stated_classes(ExternalModel(classes=classes), len(names) or 2, names)


@pytest.mark.parametrize("classes", [1, ["a"], ["a", "a"], ["a", ""], []])
def test_no_classes(classes: Any) -> None:
    with pytest.raises(UserError, match="classes"):
        make_config({**OPTIONS, "victims": ["http://h/m"], "dataset": "digits", "external": {"classes": classes}})


def test_a_run_without_it_keeps_its_name_and_python_is_told_in_python() -> None:
    assert "classes" not in ExternalModel().for_results()
    assert ExternalModel(classes=12).for_results()["classes"] == 12
    assert in_python("say how many with --classes.") == "say how many with external={'classes': …}."
