"""An audit of models that MLServer serves on loopback, by the Open Inference Protocol v2.

MLServer pins web frameworks, so it is not a test dependency: install it anywhere (`pip install mlserver`) and put
`mlserver` on the path, or name the executable in ART_DIVQAT_MLSERVER.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from art_divqat.api import evaluate, prepare
from art_divqat.data import Dataset, load_dataset
from art_divqat.estimators import RemoteClassifier
from art_divqat.plan.config import make_config

httpx = pytest.importorskip("httpx")
MLSERVER = os.environ.get("ART_DIVQAT_MLSERVER") or shutil.which("mlserver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MLSERVER, reason="no mlserver on the path, and ART_DIVQAT_MLSERVER does not name one"),
]

# `images` takes (N, 1, 8, 8); `rows` flat ones, and gives labels unless its probabilities are asked for by name, as
# MLServer's own scikit-learn runtime does
RUNTIME = """
import json, pathlib
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Linear(MLModel):
    async def load(self):
        kept = json.loads((pathlib.Path(__file__).parent / "weights.json").read_text())
        self.w, self.b = np.array(kept["w"]), np.array(kept["b"])
        return True

    async def predict(self, payload):
        x = NumpyCodec.decode_input(payload.inputs[0])
        assert x.shape[1:] == ((64,) if self.name == "rows" else (1, 8, 8)), x.shape
        logits = x.reshape(len(x), -1) @ self.w + self.b
        e = np.exp(logits - logits.max(1, keepdims=True))
        answer = (e / e.sum(1, keepdims=True)).astype(np.float32)
        asked = [output.name for output in payload.outputs or []]
        if self.name == "rows" and asked != ["predict_proba"]:
            answer = answer.argmax(1)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output((asked or ["y"])[0], answer)])
"""


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits", limit=300)


@pytest.fixture(scope="module")
def estimator(data: Dataset) -> Any:
    return LogisticRegression(max_iter=500).fit(data.x_train.reshape(len(data.x_train), -1), data.y_train)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, estimator: Any) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlserver")
    for name, shape in (("images", [-1, 1, 8, 8]), ("rows", [-1, 64])):
        (folder / name).mkdir()
        (folder / name / f"runtime_{name}.py").write_text(RUNTIME)
        (folder / name / "weights.json").write_text(
            json.dumps({"w": estimator.coef_.T.tolist(), "b": estimator.intercept_.tolist()})
        )
        card = {
            "name": name,
            "implementation": f"runtime_{name}.Linear",
            "inputs": [{"name": "pixels", "datatype": "FP32", "shape": shape}],
            "outputs": [{"name": "predict_proba", "datatype": "FP32", "shape": [-1, 10]}],
        }
        (folder / name / "model-settings.json").write_text(json.dumps(card))
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    keys = ("http_port", "grpc_port", "metrics_port")
    settings = {"host": "127.0.0.1", "parallel_workers": 0, **dict(zip(keys, ports, strict=True))}
    (folder / "settings.json").write_text(json.dumps(settings))
    # MLServer's environment is its own
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(MLSERVER), "start", str(folder)], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        base = f"http://127.0.0.1:{ports[0]}"
        _wait(base, server, folder / "log")
        yield base
    finally:
        server.terminate()
        server.wait(timeout=60)


def _wait(base: str, server: subprocess.Popen[bytes], log: Path) -> None:
    with httpx.Client(trust_env=False) as client:
        for _ in range(600):
            assert server.poll() is None, log.read_text()[-2000:]
            try:
                if client.get(f"{base}/v2/health/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.mark.parametrize("name", ["images", "rows"])
def test_it_answers_as_the_model_does(address: str, data: Dataset, estimator: Any, tmp_path: Path, name: str) -> None:
    remote = RemoteClassifier(f"{address}/v2/models/{name}", data.input_shape, 10, journal=tmp_path / "answers.jsonl")
    expected = estimator.predict_proba(data.x_test.reshape(len(data.x_test), -1))
    np.testing.assert_allclose(remote.predict(data.x_test), expected, atol=1e-6)


def test_an_audit_of_it(address: str, data: Dataset, tmp_path: Path) -> None:
    config = make_config(
        {
            "victims": [f"{address}/v2/models/rows"],
            "dataset": "digits",
            "limit": 300,
            "budgets": [60],
            "answers": ["soft"],
            "seeds": 1,
            "query_pool": "in-distribution",
            "thief_model": "lenet5",
            "thief_recipe": {"epochs": 4},
            "evasion": {"images": 10, "steps": 2},
        }
    )
    results = evaluate(prepare(config), tmp_path / "run", store=tmp_path / "store")
    (cell,) = results.cells
    assert cell.metrics["victim_accuracy"] > 0.9  # type: ignore[operator]
    assert cell.queries == 60
    assert cell.details["victim_simplex_error"] < 1e-3
    # again, and nothing is asked: the answers of the first run are in its folder
    assert evaluate(prepare(config), tmp_path / "run", store=tmp_path / "store") == results
