"""Public weights through a whole run: whose they are is in the plan, the record and the victims' identities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from art_divqat.api import evaluate, prepare
from art_divqat.audit.bench import Bench
from art_divqat.audit.estimate import estimate
from art_divqat.audit.train import train
from art_divqat.cli.dry_run import show_plan
from art_divqat.errors import UserError
from art_divqat.models import build_model
from art_divqat.plan.config import ResolvedConfig, make_config
from art_divqat.report import render
from art_divqat.victims.specs import VictimSpec, read_victim

TINY: dict[str, Any] = {
    "limit": 150,
    "budgets": [30],
    "answers": ["soft"],
    "attacks": ["knockoff"],
    "query_pool": "in-distribution",
    "seeds": 1,
    "jobs": 1,
    "device": "cpu",
    "model": "small-cnn",
    "victim_recipe": {"epochs": 1},
    "thief_recipe": {"epochs": 1},
    "evasion": {"images": 0},
}


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Somebody's weights of a small CNN, of colour images and other classes."""
    path = tmp_path_factory.mktemp("public") / "public.safetensors"
    save_file(build_model("small-cnn", (3, 8, 8), 21, seed=77).state_dict(), path)
    return str(path)


def config(**options: Any) -> ResolvedConfig:
    return prepare(make_config({**TINY, **options}))


def body(classifier: Any) -> torch.Tensor:
    """The first tensor of a public network, wherever it stands in a classifier's."""
    state = classifier.model.state_dict()
    (found,) = [value for name, value in state.items() if name.endswith("network.features.0.0.weight")]
    return found


@pytest.mark.parametrize("training", ["probe", "fine-tune"])
def test_thieves_begin_from_the_weights_and_victims_from_nothing(public: str, training: str, tmp_path: Path) -> None:
    bench = Bench(config(thief_weights=public, thief_training=training), tmp_path)
    first, other = bench.fresh_thief(1), bench.fresh_thief(2, nb_classes=4)
    assert torch.equal(body(first), load_file(public)["features.0.0.weight"])
    assert torch.equal(body(first), body(other))
    assert (first.nb_classes, other.nb_classes) == (10, 4)
    assert not any("network" in name for name in bench.victims.untrained(1).model.state_dict())


def test_victims_begin_from_the_weights_with_a_head_of_their_seed(public: str, tmp_path: Path) -> None:
    victims = Bench(config(weights=public), tmp_path).victims
    first, again, other = (victims.untrained(seed) for seed in (1, 1, 2))
    assert torch.equal(body(first), load_file(public)["features.0.0.weight"])
    assert torch.equal(body(first), body(other))
    heads = [each.model.state_dict()["network.classifier.2.weight"] for each in (first, again, other)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_identity_of_a_victim_holds_the_content_of_its_weights_and_not_their_place(
    public: str, tmp_path: Path
) -> None:
    def identity(spec: str = "standard", **options: Any) -> dict[str, Any]:
        return Bench(config(**options), tmp_path).victims.identity(read_victim(spec), 0)

    copied = tmp_path / "copy.safetensors"
    copied.write_bytes(Path(public).read_bytes())
    plain, begun, moved = identity(), identity(weights=public), identity(weights=str(copied))
    assert begun == moved
    assert begun.keys() - plain.keys() == {"weights"}
    assert (plain["model"], begun["model"]) == ("small-cnn", "normalised:small-cnn")
    assert identity(thief_weights=public) == plain
    torch.save(build_model("small-cnn", (3, 8, 8), 21, seed=78).state_dict(), tmp_path / "other.pt")
    assert identity(weights=str(tmp_path / "other.pt"))["weights"] != begun["weights"]
    assert identity("divqat", weights=public)["weights"] == begun["weights"]


def test_victims_of_large_images_are_others_than_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    for side in (64, 72):
        x = rng.integers(0, 256, (60, 1, side, side), dtype=np.uint8)
        np.savez(tmp_path / f"{side}.npz", x_train=x, y_train=y, x_test=x, y_test=y)

    def identity(side: int, model: str) -> dict[str, Any]:
        asked = config(dataset=f"npz:{tmp_path / f'{side}.npz'}", model=model, limit=None)
        return Bench(asked, tmp_path).victims.identity(VictimSpec("standard"), 0)

    assert identity(72, "resnet18")["stem"] == "imagenet"
    assert all("stem" not in each for each in (identity(64, "resnet18"), identity(72, "vgg11")))


def test_the_plan_and_the_report_say_whose_weights(
    public: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = config(thief_weights=public)
    show_plan(asked, json_output=False)
    printed = capsys.readouterr().out.splitlines()
    (number,) = (number for number, line in enumerate(printed) if line.startswith("weights"))
    assert printed[number : number + 2] == [
        "weights   victims: from nothing",
        f"          thieves: {public} (public.safetensors, sha256 {estimate(asked).weights['thief']['sha256'][:12]}…), "  # type: ignore[index]
        "without its head of 21 classes, all else left as it is",
    ]
    results = evaluate(asked, tmp_path / "run", store=tmp_path / "store")
    assert results.data["weights"].keys() == {"thief"}
    assert results.config["thief_weights"] == public
    text = render(results, "md")
    assert "| Victims began from | from nothing |" in text
    assert "| Thieves began from | " in text
    assert "without its head of 21 classes" in text
    again = prepare(make_config(json.loads(asked.model_dump_json())))
    assert again == asked


def test_without_public_weights_nothing_is_said_of_them(tmp_path: Path) -> None:
    results = evaluate(config(), tmp_path / "run", store=tmp_path / "store")
    assert "weights" not in results.data
    assert not {"weights", "thief_weights"} & results.config.keys()
    assert "began from" not in render(results, "md")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "missing.pt"}, "'missing.pt' are not there"),
        ({"thief_model": "small-cnn", "thief_weights": "imagenet"}, "no public weights for 'small-cnn'"),
        ({"thief_model": "lenet5", "thief_weights": "PUBLIC"}, "do not fit lenet5: they lack"),
    ],
)
def test_weights_that_cannot_be_used_are_refused_before_anything_starts(
    options: dict[str, Any], message: str, public: str, tmp_path: Path
) -> None:
    asked = config(**{name: value.replace("PUBLIC", public) for name, value in options.items()})
    for refused in (lambda: estimate(asked), lambda: evaluate(asked, tmp_path / "run", store=tmp_path / "store")):
        with pytest.raises(UserError, match=message):
            refused()
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("victim", "training"),
    [("standard", "fine-tune"), ("standard", "probe"), ("quantized:epochs=1", "fine-tune"), ("ptq", "fine-tune")],
)
def test_a_victim_from_public_weights_is_kept_found_again_and_audited(
    victim: str, training: str, public: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(victims=[victim], weights=public, training=training, baseline=False, limit=400,
                   victim_recipe={"epochs": 12})  # fmt: skip
    figures = train(asked, tmp_path / "kept", store=tmp_path / "store")
    monkeypatch.setattr("art_divqat.victims.provider.train_victim", lambda *_: pytest.fail("it was kept"))
    bench = Bench(asked, tmp_path / "store")
    classifier = bench.victim(read_victim(str(asked.victims[0])), 0).classifier
    x, y = bench.dataset.x_test, bench.dataset.y_test
    accuracy = float((classifier.predict(x).argmax(axis=1) == y).mean())
    assert accuracy == pytest.approx(figures["victim_accuracy"])
    own = prepare(
        make_config({**TINY, "limit": 400, "model": None, "victims": [f"file:{tmp_path / 'kept'}"], "control": False})
    )
    model = estimate(own).model
    assert model is not None
    assert model["probe_right"] / model["probe_images"] == pytest.approx(accuracy, abs=0.05)


def test_the_control_begins_from_what_the_thieves_begin_from(public: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"a model")

    def control(**options: Any) -> tuple[str, str | None]:
        asked = {
            **TINY,
            "victims": [f"file:{tmp_path / 'm.onnx'}"],
            "model": None,
            "thief_model": "small-cnn",
            **options,
        }
        made = prepare(make_config(asked))
        return made.model, made.weights

    assert control(thief_weights=public) == ("small-cnn", public)
    assert control(thief_weights=public, weights="imagenet") == ("small-cnn", "imagenet")
    assert control(thief_weights=public, model="lenet5") == ("lenet5", None)


@pytest.mark.parametrize("name", ["quantized", "divqat:alpha_auxiliary=0,alpha_mixtures=0.2", "divqat"])
def test_int8_victims_leave_a_probed_body_as_it_is(name: str, public: str, tmp_path: Path) -> None:
    """What lies before the last two layers with weights is the public network's; the rest is trained."""
    asked = config(weights=public, training="probe", victims=[name])
    victims = Bench(asked, tmp_path).victims
    victim = victims.get(asked.victims[-1], 0).classifier
    kept = load_file(public)
    state = {key: value for key, value in victim.twin.state_dict().items() if "features" in key}
    convolutions = {key: value for key, value in state.items() if value.ndim == 4}
    assert convolutions
    assert all(any(torch.equal(value, one) for one in kept.values()) for value in convolutions.values())


def test_a_robust_victim_is_no_probe(public: str) -> None:
    with pytest.raises(UserError, match=r"robust:epsilon=\S+ needs fine-tune"):
        config(weights=public, training="probe", victims=["robust"])


def test_int8_victims_with_a_probed_body_share_what_it_makes_of_large_images(
    public: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("art_divqat.victims.provider.is_large", lambda count, shape: True)
    kind = "divqat:alpha_auxiliary=0,alpha_mixtures=0.2,head=hidden"
    asked = config(weights=public, training="probe", victims=[kind], baseline=False)
    victims = Bench(asked, tmp_path).victims
    answers = []
    for seed in (0, 1):
        classifier = victims.get(asked.victims[0], seed).classifier
        answers.append(classifier.predict(victims.dataset.x_test[:40]))
        if seed == 0:
            monkeypatch.setattr(classifier.memory.features, "_rows", {})  # the file is what the other has
            files = {path: path.stat().st_mtime_ns for path in (tmp_path / "art-divqat" / "bodies").iterdir()}
    assert {path.suffix for path in files} == {".sqlite", ".safetensors"}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "art-divqat" / "bodies").iterdir()} == files
    assert not np.array_equal(*answers)
