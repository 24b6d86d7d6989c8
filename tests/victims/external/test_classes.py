"""Models with more classes than the data: each output found by its number, by a name, or known to be there at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.estimators.classification import BlackBoxClassifier
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.external_models import export_onnx

from art_divqat import audit_model
from art_divqat.api import prepare
from art_divqat.cli.dry_run import show_plan
from art_divqat.errors import UserError
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model
from art_divqat.plan.config import make_config
from art_divqat.report import render
from art_divqat.victims.external import ExternalModel, load_external
from art_divqat.victims.external.adapter import ExternalClassifier, probe
from art_divqat.victims.external.classes import match_classes
from art_divqat.victims.external.live import adapt

SHAPE = (1, 8, 8)
# of ten digits; the model was made for others too
IDS = np.array([3, 7, 12, 19, 5, 1, 0, 15, 11, 9])
OPTIONS: dict[str, Any] = {
    "budgets": [20, 40],
    "seeds": 1,
    "answers": ["soft"],
    "attacks": ["knockoff"],
    "query_pool": "in-distribution",
    "thief_model": "lenet5",
    "thief_recipe": {"epochs": 10, "batch_size": 8},
    "evasion": {"images": 12, "steps": 2},
}


def digits() -> tuple[np.ndarray, np.ndarray]:
    bunch = load_digits()
    return (bunch.images / 16).astype("float32")[:, None], bunch.target


class Wide(torch.nn.Module):
    """A linear classifier of digits among many classes."""

    def __init__(self, classes: int, ids: np.ndarray = IDS) -> None:
        super().__init__()
        x, y = digits()
        fitted = LogisticRegression(max_iter=200).fit(x[:900].reshape(900, -1), y[:900])
        weights, bias = np.zeros((classes, 64), np.float32), np.full(classes, -20.0, np.float32)
        weights[ids], bias[ids] = fitted.coef_, fitted.intercept_
        self.linear = torch.nn.Linear(64, classes)
        self.linear.load_state_dict({"weight": torch.from_numpy(weights), "bias": torch.from_numpy(bias)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1))


def some(classes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images of some digits that the model was not fitted on, with their digits."""
    x, y = digits()
    rows = np.flatnonzero(np.isin(y, classes) & (np.arange(len(y)) >= 900))
    return x[rows], y[rows]


def metrics(results: Any) -> set[str]:
    return {name for cell in results.cells if cell.victim.startswith("external") for name in cell.metrics}


def test_labels_that_are_the_models_own_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    x, y = some((0, 1, 2, 3))
    results = audit_model(Wide(20).eval(), (x, IDS[y]), output=tmp_path / "run", store=tmp_path / "s", **OPTIONS)
    assert (results.data["dataset"]["classes"], results.data["model"]["classes"]) == (4, 20)
    cell = results.cells[0]
    assert cell.metrics["victim_accuracy"] > 0.8  # type: ignore[operator]
    best = max(row.metrics["thief_accuracy"].mean for row in results.summary if row.victim == cell.victim)
    assert best > 0.5
    assert {"victim_robust_accuracy", "thief_robust_accuracy"} <= set(cell.metrics)
    # an attack that starts from what is right leaves the accuracy at most
    assert cell.metrics["victim_robust_accuracy"] <= 1.0  # type: ignore[operator]
    report = (tmp_path / "run" / "report.md").read_text()
    assert "| Its classes | the data has 4 of the model's 20 classes |" in report


def test_an_onnx_model_of_a_thousand_classes_and_folders_of_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = export_onnx(Wide(1000, IDS * 50 + 4).eval(), tmp_path / "m.onnx", dynamic_axes={"image": {0: "n"}})
    x, y = some((4, 6, 9))
    names = np.array(["four", "six", "nine"])
    labels = np.searchsorted([4, 6, 9], y)
    np.savez(tmp_path / "a.npz", x=x, y=labels, class_names=names)
    given = {**OPTIONS, "dataset": f"npz:{tmp_path / 'a.npz'}"}
    config = prepare(make_config({**given, "victims": [f"file:{model}"]}))
    show_plan(config, json_output=False)
    printed = capsys.readouterr().out
    assert "outputs   1,000 logits" in printed
    assert "accuracy  not measured" in printed
    assert "which of the model's 1,000 classes are the data's 3 is not known; agreement needs no labels" in printed
    results = audit_model(model, given.pop("dataset"), output=tmp_path / "run", store=tmp_path / "s", **given)
    assert "agreement" in metrics(results)
    assert not {name for name in metrics(results) if "accuracy" in name or "ratio" in name or "success" in name}
    # of the control they are known
    assert "victim_accuracy" in results.cells[-1].metrics
    assert results.cells[-1].victim == "standard"
    for form in ("md", "html", "sarif", "junit", "csv"):
        assert render(results, form)
    json.dumps(results.model_dump(mode="json"))


@pytest.mark.parametrize("named", [True, False])
def test_an_endpoint_of_twenty_classes_and_images_of_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    pytest.importorskip("httpx")
    from support.oip_server import Server

    for variable, value in (("XDG_CACHE_HOME", str(tmp_path / "cache")), ("NO_PROXY", "127.0.0.1")):
        monkeypatch.setenv(variable, value)
    network = Wide(20).eval()

    def answer(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(x)).softmax(dim=1).numpy()

    x, y = some((4, 6, 9))
    names = [str(IDS[label]) if named else f"shoe {label}" for label in (4, 6, 9)]
    labels = np.searchsorted([4, 6, 9], y)
    data = {
        "x_train": x[:200],
        "y_train": labels[:200],
        "x_test": x[200:],
        "y_test": labels[200:],
        "class_names": names,
    }
    with Server(answer) as server:
        given = {**OPTIONS, "budgets": 20, "thief_recipe": {"epochs": 2}, "evasion": {"images": 0}, "control": False}
        results = audit_model(server.base, data, output=tmp_path / "run", store=tmp_path / "s", **given)
    assert results.data["model"]["classes"] == 20
    assert results.data["model"]["classes_matched"] is named
    assert ("victim_accuracy" in metrics(results)) is named
    assert "agreement" in metrics(results)


@pytest.mark.parametrize("attack", ["own-images", "semi-supervised"])
def test_true_labels_cannot_be_used_where_they_are_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = {**OPTIONS, "attacks": [attack], "attacker_images": 20}
    with pytest.raises(UserError, match=r"Attack 'own-images' trains on true labels, .* attacker_labels=False"):
        audit_model(Wide(20, IDS), some((0, 1, 2, 3)), output=tmp_path / "run", **options)
    x, y = some((0, 1, 2, 3))
    if attack == "own-images":
        options["attacks"] = ["own-images", "knockoff"]
        found = audit_model(Wide(20).eval(), (x, IDS[y]), output=tmp_path / "known", store=tmp_path / "s", **options)
        # labels as the model numbers them: the thief's classes are the model's
        assert found.cells[0].metrics["thief_accuracy"] > 0.3  # type: ignore[operator]


def test_a_state_dict_of_a_registered_network_says_how_many_classes_it_has(tmp_path: Path) -> None:
    for name in ("lenet5", "small-cnn", "resnet20"):
        network = build_model(name, SHAPE, 17, seed=0)
        torch.save(network.state_dict(), tmp_path / "m.pt")
        settings = ExternalModel(source=str(tmp_path / "m.pt"), architecture=name)
        classifier = load_external(settings, SHAPE, 4)
        assert classifier.predict(np.zeros((2, *SHAPE), np.float32)).shape == (2, 17)
        assert classifier.nb_classes == 17
    with pytest.raises(UserError, match="does not fit the network"):
        load_external(settings, SHAPE, 18)


def test_live_models_with_more_classes_and_with_labels_of_their_own() -> None:
    x, y = some((0, 1, 2, 3))
    network = RecipeClassifier(Wide(20).eval(), SHAPE, 20, TrainingRecipe(epochs=1))
    assert adapt(network, SHAPE, 4).nb_classes == 20
    with pytest.raises(UserError, match="The classifier has 20 classes; the data has 21"):
        adapt(network, SHAPE, 21)
    flat, ids = x.reshape(len(x), -1), IDS[y]
    own = adapt(LogisticRegression(max_iter=100).fit(flat, ids), SHAPE, 4, ("3", "7", "12", "19"))
    # in the order of the data's classes, which is that of the numbers
    assert (np.sort(IDS[:4])[own.predict(x).argmax(axis=1)] == ids).mean() > 0.9
    with pytest.raises(UserError, match="The estimator has the classes 3, 7, 12, 19; the data has a, b, c, d"):
        adapt(LogisticRegression(max_iter=10).fit(flat, ids), SHAPE, 4, ("a", "b", "c", "d"))
    every, labels = digits()
    first = adapt(LogisticRegression(max_iter=100).fit(every[:300].reshape(300, -1), labels[:300]), SHAPE, 4)
    assert first.predict(x).shape == (len(x), 10)


NAMES = [f"thing {number}" for number in range(20)]


@pytest.mark.parametrize("kind", ["torch", "art", "art black box", "estimator", "pipeline"])
def test_live_models_whose_classes_have_names(kind: str, tmp_path: Path) -> None:
    every, labels = digits()
    # the data names three classes of the model's, in another order than it does
    chosen = (4, 0, 2)
    x, y = some(chosen)
    y = np.array([chosen.index(digit) for digit in y])
    names = [NAMES[IDS[digit]] for digit in chosen]
    model: Any = Wide(20).eval()
    if kind == "art":
        model = RecipeClassifier(model, SHAPE, 20, TrainingRecipe(epochs=1))
    elif kind == "art black box":
        network = RecipeClassifier(model, SHAPE, 20, TrainingRecipe(epochs=1))
        model = BlackBoxClassifier(network.predict, SHAPE, 20, clip_values=(0, 1))
    elif kind in ("estimator", "pipeline"):
        # its classes are words, which it states itself
        model = LogisticRegression(max_iter=100)
        model = make_pipeline(StandardScaler(), model) if kind == "pipeline" else model
        model.fit(every[:400].reshape(400, -1), np.array(NAMES)[IDS[labels[:400]]])
    parts = {"x_train": x[::2], "y_train": y[::2], "x_test": x[1::2], "y_test": y[1::2], "class_names": names}
    external = {} if kind in ("estimator", "pipeline") else {"external": {"classes": NAMES}}
    found = audit_model(model, parts, output=tmp_path / "run", store=tmp_path / "s", **OPTIONS, **external)
    said = found.data["model"]
    assert said["classes_matched"], said
    assert said["probe_right"] > 0.8 * said["probe_images"]
    assert found.cells[0].metrics["victim_accuracy"] > 0.8  # type: ignore[operator]
    again = audit_model(model, config=tmp_path / "run" / "config.yaml", output=tmp_path / "two", store=tmp_path / "s")
    assert [cell.metrics["agreement"] for cell in again.cells] == [cell.metrics["agreement"] for cell in found.cells]


def test_what_may_be_said_of_a_live_model() -> None:
    x, y = some((0, 1, 2, 3))
    network = Wide(20).eval()
    for key, value in (("factory", "shop:build"), ("rate", 3), ("architecture", "lenet5"), ("protocol", "v2")):
        with pytest.raises(UserError, match=f"{key}.* files and endpoints; .* outputs, classes, mean, std"):
            audit_model(network, (x, y), **OPTIONS, external={key: value})
    with pytest.raises(UserError, match="names 20 classes, and none is '0'"):
        audit_model(network, (x, y), **OPTIONS, external={"classes": NAMES})
    for model in (RecipeClassifier(network, SHAPE, 20, TrainingRecipe(epochs=1)), LogisticRegression()):
        with pytest.raises(UserError, match="has to standardise its images itself"):
            audit_model(model, (x, y), **OPTIONS, external={"mean": [0.5]})
    images = np.random.default_rng(0).random((5, *SHAPE)).astype(np.float32)
    settings = ExternalModel(mean=(0.25,), std=(0.5,))
    np.testing.assert_allclose(
        adapt(network, SHAPE, 20, settings=settings).predict(images),
        adapt(network, SHAPE, 20).predict((images - 0.25) / 0.5),
        atol=1e-5,
    )


def test_a_width_is_kept_once_it_was_seen() -> None:
    answers = iter([20, 20, 10])
    classifier = adapt(Wide(20), SHAPE, 4)
    classifier._behind = lambda x: np.ones((len(x), next(answers)), np.float32)
    for _ in range(2):
        assert classifier.predict(np.zeros((3, *SHAPE))).shape == (3, 20)
    with pytest.raises(UserError, match=r"answers 3 images with shape \(3, 10\)"):
        classifier.predict(np.zeros((3, *SHAPE)))


def rows(given: np.ndarray, outputs: int) -> np.ndarray:
    return np.eye(outputs, dtype=np.float32)[given]


def test_how_classes_are_matched() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 120)
    wrong = rng.random(120) < 0.2
    noisy = np.where(wrong, rng.integers(0, 50, 120), y)
    assert match_classes(rows(noisy, 50), y).ids == ()
    by_name = np.where(wrong, 0, np.array([9, 4, 30, 2])[y])
    found = match_classes(rows(by_name, 50), y, ("9", "4", "30", "2"))
    assert (found.ids, found.right) == ((9, 4, 30, 2), int((~wrong).sum()))
    unknown = match_classes(rows(by_name, 50), y, ("cat", "dog", "owl", "ape"))
    assert (unknown.ids, unknown.right) == (None, None)
    # names that are numbers, and not those of this model
    assert match_classes(rows(by_name, 50), y, ("2019", "2020", "2021", "2022")).ids is None


@pytest.mark.parametrize("outputs", [4, 50, 1000])
@pytest.mark.parametrize("kind", ["random", "constant", "another order"])
def test_a_model_that_does_not_know_the_images_is_refused(outputs: int, kind: str) -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 4, 120)
    given = {"random": rng.integers(0, outputs, 120), "constant": np.full(120, 2), "another order": (y + 1) % 4}[kind]
    if kind == "another order" and outputs > 4:
        # it knows them, by other numbers
        assert match_classes(rows(given, outputs), y).ids is None
        return
    with pytest.raises(UserError, match=r"right on \d+ of 120 test images, no better than chance"):
        match_classes(rows(given, outputs), y)


@pytest.mark.parametrize("paid", [False, True])
@pytest.mark.parametrize(("noise", "named"), [(0.0, False), (9.0, True)])
def test_noise_is_named_where_it_hides_the_classes(noise: float, named: bool, paid: bool) -> None:
    x, y = digits()
    rng = np.random.default_rng(0)
    asked = []

    def answer(images: np.ndarray) -> np.ndarray:
        asked.append(len(images))
        logits = np.eye(10)[images.reshape(len(images), -1).argmax(axis=1) % 10] * 0.01
        return logits + noise * rng.random((len(images), 10)) - 0.001

    model = ExternalClassifier(answer, SHAPE, 10, repeat=answer if paid else None)
    with pytest.raises(UserError, match=r"no better than chance: check.* that it belongs to this data") as caught:
        probe(model, x, y, "logits")
    assert ("asked the same 16 images twice, it names another class for 1" in str(caught.value)) is named
    assert asked == [128, 16]


@pytest.mark.parametrize("classes", [10, 20])
def test_test_images_that_are_sorted_by_class_are_probed_of_all_classes(classes: int) -> None:
    x, y = digits()
    order = np.argsort(y, kind="stable")
    ids = np.arange(10) if classes == 10 else IDS
    classifier = adapt(Wide(classes, ids), SHAPE, 10, tuple(map(str, np.sort(ids))))
    # the first 128 images are of one digit alone
    assert len(set(y[order][:128])) == 1
    named = np.searchsorted(np.sort(ids), ids[y])
    able = probe(classifier, x[order], named[order], "auto").capabilities
    assert able.class_ids == (() if classes == 10 else tuple(sorted(ids)))
    assert able.probe is not None
    assert able.probe.right is not None
    assert able.probe.right > 0.8 * able.probe.images == 0.8 * 128
