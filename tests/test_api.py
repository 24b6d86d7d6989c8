"""The one door: a configuration is resolved once, goes to one folder from wherever it comes, and is reported there."""

from __future__ import annotations

import gc
import re
import traceback
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.estimators.classification import BlackBoxClassifier
from PIL import Image

import art_divqat
from art_divqat import api
from art_divqat.audit.folder import RunFolder, default_folder
from art_divqat.data import load_dataset
from art_divqat.errors import UserError
from art_divqat.models import build_model
from art_divqat.plan.config import make_config
from art_divqat.results.schema import Results
from art_divqat.victims.external import settings

TINY: dict[str, Any] = {
    "limit": 100,
    "seeds": 1,
    "attacks": ["knockoff"],
    "budgets": [20],
    "answers": ["soft"],
    "query_pool": "in-distribution",
    "thief_model": "lenet5",
    "thief_recipe": {"epochs": 1},
    "evasion": {"images": 0},
}


class _StoppedError(Exception):
    """Stands for the run, which is not what is tested."""


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where each run would have gone."""
    gone: list[Path] = []

    def evaluate(config: Any, output: Path, **given: Any) -> Results:
        del config, given
        gone.append(output)
        raise _StoppedError

    monkeypatch.setattr(api, "run_and_report", evaluate)
    return gone


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    torch.save(build_model("lenet5", (1, 8, 8), 10, seed=0).state_dict(), "m.pt")
    return "m.pt"


@pytest.mark.parametrize("device", [None, "auto", "cpu"])
def test_the_shell_and_python_go_to_one_folder(folders: list[Path], model: str, device: str | None) -> None:
    from art_divqat.cli.audit import audit

    with pytest.raises(_StoppedError):
        audit(model, dataset="digits", architecture="lenet5", budgets=["20"], device=device, quiet=True)
    options = {} if device is None else {"device": device}
    with pytest.raises(_StoppedError):
        api.audit_model(model, "digits", external={"architecture": "lenet5"}, budgets=(20,), **options)
    assert folders[0] == folders[1]


def test_a_plain_configuration_goes_there_too(folders: list[Path]) -> None:
    from art_divqat.cli.evaluate import evaluate

    with pytest.raises(_StoppedError):
        evaluate(victims=["robust"], budgets=["20,40"], quiet=True)
    assert folders == [default_folder(api.prepare(make_config({"victims": ["robust"], "budgets": [20, 40]})))]


def test_a_model_is_hashed_once_a_run(folders: list[Path], model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from art_divqat.cli.audit import audit

    calls = []
    named = settings.external_name
    monkeypatch.setattr(settings, "external_name", lambda *given: calls.append(given) or named(*given))
    with pytest.raises(_StoppedError):
        audit(model, dataset="digits", architecture="lenet5", quiet=True)
    assert len(calls) == 1


def test_prepare_says_the_device_and_lets_one_process_ask_a_model_that_is_not_a_file(model: str) -> None:
    assert api.prepare(make_config({"jobs": 3, "device": "cpu"})).jobs == 3
    assert api.prepare(make_config({})).device != "auto"
    file = make_config({"jobs": 3, "victims": [f"file:{model}"]})
    assert api.prepare(file).jobs == 3
    endpoint = make_config({"jobs": 3, "victims": ["http://127.0.0.1:1/v2/models/m"]})
    assert api.prepare(endpoint).jobs == 1
    live = make_config({"jobs": 3, "victims": ["external:name=a,sha256=x0"], "external": {}})
    assert api.prepare(live).jobs == 1
    with pytest.raises(UserError, match="Unknown device 'gpu'"):
        api.prepare(make_config({"device": "gpu"}))


def test_the_report_is_written_while_the_folder_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import art_divqat.report

    def publish(results: Results, folder: Path) -> None:
        assert len(results.cells) == 1
        with pytest.raises(UserError, match="Another process is running"), RunFolder(folder).locked():
            pass
        (folder / "published").touch()

    monkeypatch.setattr(art_divqat.report, "write_report", publish)
    config = api.prepare(make_config({**TINY, "victim_recipe": {"epochs": 1}, "model": "lenet5", "jobs": 1}))
    api.evaluate(config, tmp_path / "run", store=tmp_path / "store")
    assert (tmp_path / "run" / "published").exists()


class _Estimator:
    """Answers with the class of the brightest of ten pixels: a classifier of the data below, beyond doubt."""

    def predict(self, rows: np.ndarray) -> np.ndarray:
        return rows[:, :10].argmax(axis=1)


def _bright() -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(400) % 10
    x = np.zeros((400, 1, 8, 8), np.float32)
    x[np.arange(400), 0, y // 8, y % 8] = 1
    x[:, 0, 7] = np.random.default_rng(0).random((400, 8))
    return x, y


def test_nothing_holds_a_live_model_after_its_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = _Estimator()
    results = api.audit_model(model, _bright(), output=tmp_path / "run", **TINY)
    assert results.cells[0].metrics["victim_accuracy"] == 1
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_pictures_take_the_form_of_a_live_classifier(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in range(2):
        (tmp_path / "pictures" / f"{label}").mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(0, 80, (20, 24 + number % 2, 3)) + 150 * label
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pictures" / f"{label}" / f"{number}.png")

    def predict(x: np.ndarray) -> np.ndarray:
        assert x.shape[1:] == (12, 10, 1)
        return np.eye(2)[(x.mean(axis=(1, 2, 3)) > 0.5).astype(int)]

    model = BlackBoxClassifier(predict, (12, 10, 1), 2, clip_values=(0, 1))
    options = {**TINY, "limit": None, "query_pool": "noise"}
    results = api.audit_model(model, f"folder:{tmp_path / 'pictures'}", output=tmp_path / "run", **options)
    assert results.data["dataset"]["input_shape"] == [1, 12, 10]
    assert results.config["image_size"] == [12, 10]
    assert results.cells[0].metrics["victim_accuracy"] == 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_a_worker_refuses_is_one_sentence_in_pythons_words(jobs: int, tmp_path: Path) -> None:
    torch.jit.script(build_model("lenet5", (1, 8, 8), 10, seed=0)).save(str(tmp_path / "m.pt"))
    with pytest.raises(UserError, match=r"runs its code on this machine\. Add trust_code=True if") as caught:
        api.audit_model(tmp_path / "m.pt", "digits", output=tmp_path / "run", **{**TINY, "jobs": jobs})
    shown = "".join(traceback.format_exception(caught.value))
    assert "RemoteTraceback" not in shown
    assert "direct cause" not in shown
    assert caught.value.__cause__ is None
    assert "trust_code" in (api.audit_model.__doc__ or "")
    assert "trust_code" in (api.evaluate.__doc__ or "")


def test_arrays_given_are_never_called_by_the_file_that_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a cache"))
    x, y = np.random.default_rng(0).random((60, 8, 8)), np.arange(60) % 3
    whole = {"x_train": x, "y_train": y, "x_test": x[:9], "y_test": y[:9]}
    cases = [
        ((x, np.zeros(60, int)), "^The arrays given: y_train has images of a single class"),
        ({**whole, "y_test": y[:9] + 3}, "^The arrays given: y_test holds class 3"),
        ({**whole, "x_test": x[:9, :7]}, "^The arrays given: x_train holds images of"),
        ((x[:9], [0, 1] * 4 + [2]), "^The arrays given: class . has too few images"),
    ]
    for data, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            api.audit_model(_Estimator(), data, output=tmp_path / "run", **TINY)
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(UserError, match=r"^The attacker cannot have 5000 images of their own: the arrays given holds"):
        api.audit_model(_Estimator(), _bright(), attacker_images=5000, output=tmp_path / "run", **TINY)


def test_the_folder_of_arrays_given_is_not_called_by_the_file_that_keeps_them(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a cache"))
    for data in (_bright(), (_bright()[0][:60], _bright()[1][:60])):
        with pytest.raises(_StoppedError):
            api.audit_model(_Estimator(), data, **TINY)
    assert all(re.fullmatch(r"art-divqat-runs/arrays-[0-9a-f]{8}", folder.as_posix()) for folder in folders)
    assert len(set(folders)) == 2
    # a file that its owner knows is called by its name
    monkeypatch.chdir(tmp_path)
    np.savez("shop.npz", x=_bright()[0], y=_bright()[1])
    with pytest.raises(_StoppedError):
        api.audit_model(_Estimator(), "npz:shop.npz", **TINY)
    assert folders[-1].name.startswith("npz-shop-npz-")


def test_names_of_classes_are_given_beside_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    x, y = _bright()
    names = np.array([f"class {number}" for number in range(10)])
    for data in ((x, names[y]), {"x_train": x, "y_train": names[y], "x_test": x, "y_test": y}):
        with pytest.raises(UserError, match=r"texts, such as 'class 0'.*numpy.unique.*give the names as class_names"):
            api.audit_model(_Estimator(), data, output=tmp_path / "run", **TINY)
    plain = {"x_train": x, "y_train": y, "x_test": x[:40], "y_test": y[:40]}
    kept = [api._kept({**plain, "class_names": given}) for given in (None, names, list(names[::-1]))]
    assert len(set(kept)) == 3
    assert kept[0] == api._kept(plain)
    assert load_dataset(kept[1]).class_names == tuple(names)


def _rows_and_labels() -> tuple[np.ndarray, np.ndarray]:
    x, y = _bright()
    return x.reshape(len(x), -1), y


def _sklearn() -> Any:
    from art.estimators.classification import SklearnClassifier
    from sklearn.ensemble import RandomForestClassifier

    return SklearnClassifier(RandomForestClassifier(20, random_state=0).fit(*_rows_and_labels()), clip_values=(0, 1))


def _xgboost() -> Any:
    xgboost = pytest.importorskip("xgboost", reason="XGBoost is not installed")
    from art.estimators.classification import XGBoostClassifier

    model = xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(*_rows_and_labels())
    return XGBoostClassifier(model, clip_values=(0, 1), nb_features=64, nb_classes=10)


def _keras() -> Any:
    tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow and Keras are not installed")
    from art.estimators.classification import TensorFlowV2Classifier

    layers = [tensorflow.keras.layers.Flatten(), tensorflow.keras.layers.Dense(10)]
    model = tensorflow.keras.Sequential([tensorflow.keras.Input((8, 8, 1)), *layers])
    model.compile(tensorflow.keras.optimizers.Adam(0.05), tensorflow.keras.losses.SparseCategoricalCrossentropy(True))
    rows, y = _rows_and_labels()
    model.fit(rows.reshape(-1, 8, 8, 1), y, epochs=20, verbose=0)
    return TensorFlowV2Classifier(model, nb_classes=10, input_shape=(8, 8, 1), clip_values=(0, 1))


def _pytorch() -> Any:
    from art.estimators.classification import PyTorchClassifier

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    classifier = PyTorchClassifier(
        network, torch.nn.CrossEntropyLoss(), (1, 8, 8), 10, optimizer, clip_values=(0, 1), device_type="cpu"
    )
    classifier.fit(*_bright(), nb_epochs=20)
    return classifier


def _onnx() -> Any:
    """ART has no classifier of its own for ONNX: its runtime answers for a black box."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    weights = onnx.numpy_helper.from_array(np.eye(64, 10, dtype=np.float32), "w")
    nodes = [onnx.helper.make_node("Flatten", ["x"], ["rows"]), onnx.helper.make_node("MatMul", ["rows", "w"], ["y"])]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 1, 8, 8]), ("y", ["n", 10]))
    ]
    graph = onnx.helper.make_graph(nodes, "brightest", ends[:1], ends[1:], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return BlackBoxClassifier(lambda x: session.run(None, {"x": x})[0], (1, 8, 8), 10, clip_values=(0, 1))


@pytest.mark.parametrize("make", [_pytorch, _sklearn, _xgboost, _keras, _onnx])
def test_classifiers_of_every_library_give_a_result_that_shows_itself(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = art_divqat.audit_model(make(), _bright(), output=tmp_path / "run", **{**TINY, "control": False})
    assert result.cells[0].metrics["victim_accuracy"] > 0.9
    assert result.folder == tmp_path / "run"
    assert "Run folder: " in repr(result)
    again = art_divqat.load(tmp_path / "run")
    assert again == result
    assert repr(again) == repr(result)


def test_evaluate_takes_options_or_a_file_and_nothing_beside_a_resolved_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = {**TINY, "victim_recipe": {"epochs": 1}, "model": "lenet5", "jobs": 1}
    result = art_divqat.evaluate(**options)
    assert result.folder == default_folder(api.prepare(make_config(options)))
    again = art_divqat.evaluate(tmp_path / result.folder / "config.yaml", "again", seeds=2)
    assert [cell.seed for cell in again.cells] == [0, 1]
    assert again.folder == Path("again")
    with pytest.raises(UserError, match="seeds was given beside a resolved configuration"):
        art_divqat.evaluate(api.prepare(make_config(options)), "third", seeds=2)
    with pytest.raises(UserError, match="Unknown victim 'robst'"):
        art_divqat.evaluate(victims=["robst"])
    with pytest.raises(UserError, match=r"holds a run of other settings .*: give output another folder"):
        art_divqat.evaluate(**{**options, "limit": 90}, output="again")
    assert not (tmp_path / "third").exists()


def test_prepare_and_evaluate_speak_python(tmp_path: Path) -> None:
    config = make_config({"victims": ["standard"], "dataset": "digits", "query_pool": "in-distribution", "limit": 100})
    config = config.model_copy(update={"budgets": (10**9,)})
    with pytest.raises(UserError, match=r"lower budgets or choose a larger query_pool"):
        api.evaluate(api.prepare(config), tmp_path / "run", store=tmp_path / "store")
    with pytest.raises(UserError, match=r"lower --budget or choose a larger --query-pool"):
        api.run_and_report(api.resolved_for_run(config), tmp_path / "run", store=tmp_path / "store")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r": give output a new or empty folder"):
        api.evaluate(api.prepare(config), tmp_path / "mine", store=tmp_path / "store")
