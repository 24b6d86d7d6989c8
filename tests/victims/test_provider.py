"""Victims by name and seed: identities that never change, one training each, and what each can do."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from art_divqat._canonical import content_hash
from art_divqat.data import Dataset, load_dataset
from art_divqat.errors import UserError
from art_divqat.estimators import TrainingRecipe
from art_divqat.registry import Registry
from art_divqat.victims import provider as rooms
from art_divqat.victims.external import ExternalModel
from art_divqat.victims.provider import VictimProvider, VictimSettings
from art_divqat.victims.registry import VICTIMS, VictimEntry
from art_divqat.victims.serving import answering
from art_divqat.victims.specs import VictimSpec, read_victim
from art_divqat.victims.store import VictimStore
from art_divqat.victims.victim import Capabilities, Victim

# as version 1 of this package computed them: a change makes users train their victims anew
OWN = "f613f2efcfce304cde717954bd43342644296388b26154c5b6e540929974a1ce"
EXTERNAL = "c651a6e6bea12af5d2b37c13ab1d32524c18d393b1752581dc75a8c937357f62"


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits", limit=150)


def provider(data: Dataset, store: Path, live: Victim | None = None, **more: object) -> VictimProvider:
    settings = VictimSettings("lenet5", TrainingRecipe(epochs=1), **more)  # type: ignore[arg-type]
    return VictimProvider(data, settings, VictimStore(store), live)


def test_the_identity_of_a_victim_is_what_kept_victims_are_found_by(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.0")
    own = provider(data, tmp_path, device="cuda:1", threads=2)
    assert content_hash(own.identity(read_victim("robust:epsilon=0.2"), 3)) == OWN
    external = provider(data, tmp_path, external=ExternalModel(source="m.pt", architecture="lenet5", mean=(0.5,)))
    assert content_hash(external.identity(read_victim("external:name=m.pt,sha256=x0"), 0)) == EXTERNAL


def test_victims_of_feature_mixtures_as_they_once_were_trained_are_not_found_again(
    data: Dataset, tmp_path: Path
) -> None:
    own = provider(data, tmp_path)
    new = {
        weight: "feature_mixtures_version" in own.identity(read_victim(f"divqat:alpha_mixtures={weight}"), 0)
        for weight in (0, 0.1)
    }
    assert new == {0: False, 0.1: True}


def test_a_quantized_victim_and_its_parent_are_trained_once_and_loaded_ever_after(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    train = rooms.train_victim
    monkeypatch.setattr(rooms, "train_victim", lambda spec, context: trained.append(str(spec)) or train(spec, context))
    first = provider(data, tmp_path)
    int8 = first.get(VictimSpec("ptq"), 0)
    assert first.get(VictimSpec("ptq"), 0) is int8
    assert first.parent(VictimSpec("ptq"), 0) is first.get(VictimSpec("standard"), 0)
    assert first.parent(VictimSpec("standard"), 0) is None
    again = provider(data, tmp_path).get(VictimSpec("ptq"), 0)
    assert trained == ["standard", "ptq"]
    np.testing.assert_array_equal(int8.classifier.predict(data.x_test), again.classifier.predict(data.x_test))
    assert again.sha256 == int8.sha256 is not None
    standard = first.get(VictimSpec("standard"), 0).sha256
    assert first.get(VictimSpec("standard"), 0, retrain=True) is first.get(VictimSpec("standard"), 0)
    assert first.get(VictimSpec("standard"), 0).sha256 == standard not in (None, int8.sha256)
    assert trained == ["standard", "ptq", "standard"]
    # nothing is attacked here: that is for whoever measures
    assert not list(tmp_path.glob("*/evasion-*"))


def test_what_a_victim_can_do(data: Dataset, tmp_path: Path) -> None:
    victim = provider(data, tmp_path).get(VictimSpec("standard"), 0)
    able = victim.capabilities
    assert able.white_box is victim.classifier
    assert (able.outputs, able.remote, able.own_defences) == ("logits", False, None)
    assert not able.in_train_mode()
    able.white_box.model.train()
    assert able.in_train_mode()


def test_answers_are_probabilities_whatever_the_victim_gives(data: Dataset, tmp_path: Path) -> None:
    logits = provider(data, tmp_path).get(VictimSpec("standard"), 0)
    rows = answering(logits).predict(data.x_test)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)
    soft = Victim(answering(logits), Capabilities(outputs="probabilities"))
    np.testing.assert_array_equal(answering(soft).predict(data.x_test), rows)


def test_a_live_victim_stands_for_the_external_one(data: Dataset, tmp_path: Path) -> None:
    name = read_victim("external:name=a,sha256=x0")
    live = Victim(object(), Capabilities())  # type: ignore[arg-type]
    assert provider(data, tmp_path, live, external=ExternalModel()).get(name, 1) is live
    with pytest.raises(UserError, match="This model was an object of Python's"):
        provider(data, tmp_path, external=ExternalModel()).get(name, 1)
    with pytest.raises(UserError, match="a model of another place"):
        provider(data, tmp_path).get(name, 1)


def test_a_full_precision_victim_with_a_parent_is_loaded_ever_after(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = VictimEntry("standard as it is", lambda context, spec: copy.deepcopy(context.parent), parent="standard")
    table = Registry("victim", "victims", VictimEntry, {"standard": VICTIMS["standard"], "tuned": tuned})
    for module in ("registry", "specs", "training"):
        monkeypatch.setattr(f"art_divqat.victims.{module}.VICTIMS", table)
    first = provider(data, tmp_path).get(VictimSpec("tuned"), 0).classifier
    monkeypatch.setattr(rooms, "train_victim", lambda spec, context: pytest.fail(f"{spec} was trained again"))
    again = provider(data, tmp_path).get(VictimSpec("tuned"), 0).classifier
    np.testing.assert_array_equal(again.predict(data.x_test), first.predict(data.x_test))


def test_a_victim_that_the_store_cannot_keep_is_refused(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = VictimEntry("a network alone", lambda context, spec: context.fresh_classifier().model)
    table = Registry("victim", "victims", VictimEntry, {"network": network})
    for module in ("registry", "specs", "training"):
        monkeypatch.setattr(f"art_divqat.victims.{module}.VICTIMS", table)
    with pytest.raises(UserError, match="'network' was trained to a LeNet5: expected a RecipeClassifier"):
        provider(data, tmp_path).get(VictimSpec("network"), 0)


def test_progress_says_what_a_quantized_victims_training_does(data: Dataset, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    provider(data, tmp_path).get(read_victim("quantized:epochs=2"), 0, lambda *what: told.append(what))
    words = list(dict.fromkeys(description for description, _, _ in told))
    assert words[0] == "training standard, seed 0"
    assert [f"training quantized, seed 0: epoch {n}/2" in words for n in (1, 2)] == [True, True]
    assert words[-1] == "training quantized, seed 0: int8 network"
    assert all(0 <= done <= total for _, done, total in told)
