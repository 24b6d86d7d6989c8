"""Defences by name: parsing, canonical form, building, applying."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from art.estimators.classification import BlackBoxClassifierNeuralNetwork, PyTorchClassifier
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from art_divqat.defences import registry
from art_divqat.defences.postprocessor import HeuristicPerturbation, Rounding, Softmax
from art_divqat.defences.registry import (
    DEFENCES,
    DefenceContext,
    DefenceSpec,
    apply_defence,
    build_postprocessors,
    check_defence,
    list_defences,
    parse_defence,
)
from art_divqat.estimators import TrainingRecipe
from art_divqat.models import build_model
from art_divqat.registry import load_target
from art_divqat.specs import parse_spec


@pytest.fixture(scope="module")
def digits() -> Any:
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32).reshape(-1, 1, 8, 8), y.astype(np.int64)


def victim() -> Any:
    network = build_model("lenet5", (1, 8, 8), 10, seed=0)
    return PyTorchClassifier(
        network,
        torch.nn.CrossEntropyLoss(),
        (1, 8, 8),
        10,
        clip_values=(0, 1),
        postprocessing_defences=[Softmax()],
        device_type="cpu",
    )


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("none", "none"),
        ("heuristic", "heuristic"),
        ("Heuristic: gamma=0.20, beta=1", "heuristic:beta=1.0,gamma=0.2"),
        ("heuristic:beta=0.5,gamma=0.2+rounding:decimals=2", "heuristic:beta=0.5,gamma=0.2+rounding:decimals=2"),
        ("heuristic:nu=1e+3 + top_k:k=3", "heuristic:nu=1000.0+top-k:k=3"),
        ("mad:epsilon=1,preserve_label=true", "mad:epsilon=1.0,preserve_label=true"),
    ],
)
def test_canonical_form(text: str, canonical: str) -> None:
    assert str(parse_defence(text)) == canonical
    assert parse_defence(canonical) == parse_defence(text)


def drawn(name: str, key: str, data: st.DataObject) -> Any:
    words = {"model": "lenet5", "variant": "released", "target": "clean", "epochs": "4"}
    default = DEFENCES[name].parameters[key].default
    kinds = {bool: st.booleans(), int: st.integers(1, 6), float: st.floats(0.1, 1)}
    return words[key] if key in words else data.draw(kinds[type(default)])


@given(st.lists(st.sampled_from(sorted(DEFENCES)), min_size=1, max_size=4), st.data())
def test_round_trip(names: list[str], data: st.DataObject) -> None:
    links = []
    for name in names:
        known = sorted(set(DEFENCES[name].parameters) - set(DEFENCES[name].budgets))
        chosen = data.draw(st.sets(st.sampled_from(known))) if known else set()
        given_values = [f"{key}={drawn(name, key, data)}" for key in chosen]
        links.append(name + (":" + ",".join(given_values) if given_values else ""))
    spec = parse_defence("+".join(links))
    assert parse_defence(str(spec)) == spec
    assert [link.name for link in spec.links] == names


def test_what_is_declared_is_what_the_classes_have() -> None:
    """Defaults stand in the signatures too, for whoever reads them; here they are held together."""
    for name in DEFENCES:
        entry = DEFENCES[name]
        build = load_target(entry.build)
        taken = inspect.signature(build).parameters
        network = () if entry.needs == "nothing" else ("model", "epochs")
        own = {key: each for key, each in entry.parameters.items() if key not in (*entry.budgets, *network)}
        assert {key: each.default for key, each in own.items()} == {key: taken[key].default for key in own}, name
        assert build.parameters == own, name
        assert ("seed" in taken) == entry.seeded, name
        assert set(own) == set(build.params) - {"seed", "input_type", "batch_size"}, name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("heuristik", "did you mean heuristic"),
        ("heuristic:betta=1", "no parameter 'betta': did you mean beta"),
        ("heuristic:beta", "not parameter=value"),
        ("heuristic:beta=high", "'beta' parameter of defence 'heuristic' must be a float in .* Got 'high'"),
        ("heuristic:preserve_label=1", "must be True or False. Got 1"),
        ("rounding:decimals=2.5", "must be an int from 1 to 6. Got 2.5"),
        ("labels:k=3", "takes none"),
        ("none+rounding", "stands alone"),
        ("none:beta=1", "stands alone"),
        ("", "does not start with a name"),
        ("heuristic+", "parameter=value|does not start with a name|Unknown"),
        ("heuristic:l1=0.3,beta=0.5", "gives more than one of beta, l1 and max_label_flips: choose one"),
        (7, "but got int"),
    ],
)
def test_what_cannot_be_read(text: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_defence(text)


@pytest.mark.parametrize(
    "text",
    [
        "heuristic:beta=-1",
        "heuristic:l1=3",
        "heuristic:max_label_flips=-0.1",
        "mad:epsilon=3",
        "grad2:target=zeros",
        "mad:model=resnet2",
        "grad2:epochs=0",
        "top-k:k=0",
    ],
)
def test_ranges_are_checked_before_anything_is_trained(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be|did you mean"):
        parse_defence(text)
    with pytest.raises(ValueError, match=r"must be|did you mean"):
        check_defence(DefenceSpec((parse_spec(text),)))


def test_a_network_that_images_are_too_small_for_is_refused() -> None:
    spec = parse_defence("mad:model=VGG16+rounding")
    assert str(spec) == "mad:model=vgg16+rounding"
    check_defence(spec)
    check_defence(spec, (3, 32, 32))
    with pytest.raises(ValueError, match="at least 32×32 pixels, these are 8×8"):
        check_defence(spec, (1, 8, 8))


def test_postprocessors() -> None:
    posts = build_postprocessors(parse_defence("heuristic:beta=0.7+rounding:decimals=2"), seed=0)
    assert [type(post) for post in posts] == [HeuristicPerturbation, Rounding]
    assert posts[0].beta == 0.7
    assert build_postprocessors(parse_defence("none"), seed=0) == []
    for text in ("mad", "heuristic:l1=0.2"):
        with pytest.raises(ValueError, match="apply_defence"):
            build_postprocessors(parse_defence(text), seed=0)


def test_links_that_draw_have_streams_of_their_own() -> None:
    y = np.random.default_rng(0).dirichlet(np.ones(5), 30)
    first, second = build_postprocessors(parse_defence("random+random"), seed=0)
    again = build_postprocessors(parse_defence("random"), seed=0)[0]
    other = build_postprocessors(parse_defence("random"), seed=1)[0]
    served = first(y)
    assert not np.array_equal(served, second(y))
    np.testing.assert_array_equal(served, again(y))
    assert not np.array_equal(served, other(y))


def test_every_name_builds_and_is_listed(digits: Any) -> None:
    x, y = digits[0][:64], digits[1][:64]
    context = DefenceContext(x, y, recipe=TrainingRecipe(epochs=1), model="lenet5")
    clean = victim()
    before = clean.predict(x)
    assert set(list_defences()) == {"none", *DEFENCES}
    for name in list_defences():
        defended = apply_defence(clean, parse_defence(name), seed=0, context=context)
        served = defended.predict(x)
        assert served.shape == (64, 10)
        assert served.dtype == np.float32
        np.testing.assert_allclose(served.sum(axis=1), 1, atol=1e-4)
        assert isinstance(defended, PyTorchClassifier)
        again = apply_defence(clean, parse_defence(name), seed=0, context=context)
        np.testing.assert_array_equal(again.predict(x), served)
    np.testing.assert_array_equal(clean.predict(x), before)


def test_a_chain_runs_from_left_to_right_through_wrappers_too(digits: Any) -> None:
    x, y = digits[0][:64], digits[1][:64]
    context = DefenceContext(x, y, model="lenet5")
    clean = victim()
    mad = apply_defence(clean, parse_defence("mad:epsilon=0.6"), seed=5, context=context)
    both = apply_defence(clean, parse_defence("mad:epsilon=0.6+rounding:decimals=1"), seed=5, context=context)
    np.testing.assert_array_equal(both.predict(x), Rounding(1)(mad.predict(x)))
    reverse = apply_defence(clean, parse_defence("rounding:decimals=1+mad:epsilon=0.6"), seed=5, context=context)
    assert not np.array_equal(reverse.predict(x), both.predict(x))


def test_a_budget_is_fitted_on_held_out_answers(digits: Any) -> None:
    x, y = digits
    context = DefenceContext(x[:100], y[:100], x_held_out=x[100:400])
    clean = victim()
    defended = apply_defence(clean, parse_defence("heuristic:l1=0.05"), seed=0, context=context)
    change = np.abs(defended.predict(x[100:400]) - clean.predict(x[100:400])).sum(axis=1).mean()
    assert change == pytest.approx(0.05, abs=1e-3)
    with pytest.raises(ValueError, match="got no context"):
        apply_defence(clean, parse_defence("heuristic:l1=0.05"), seed=0)
    with pytest.raises(ValueError, match="got no context"):
        apply_defence(clean, parse_defence("mad"), seed=0)


def test_a_served_black_box(digits: Any) -> None:
    x, y = digits[0][:32], digits[1][:32]
    source = victim()
    served = BlackBoxClassifierNeuralNetwork(
        source.predict, (1, 8, 8), 10, clip_values=(0, 1), postprocessing_defences=None
    )
    context = DefenceContext(x, y, recipe=TrainingRecipe(epochs=1), model="lenet5")
    for text in ("none", "heuristic:beta=0.9", "grad2:epsilon=0.5,epochs=1+labels"):
        answers = apply_defence(served, parse_defence(text), seed=0, context=context).predict(x)
        assert answers.shape == (32, 10)


def test_importing_the_registry_is_cheap() -> None:
    code = "import sys, art_divqat.defences.registry as r; r.list_defences(); r.check_defence(r.parse_defence('mad')); "
    code += "print([m for m in ('torch', 'art', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_link_is_checked_when_it_is_read_and_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = BlackBoxClassifierNeuralNetwork(lambda x: np.full((len(x), 3), 1 / 3, np.float32), (1, 2, 2), 3)
    spec = parse_defence("heuristic:beta=0.5+rounding:decimals=2+random")
    built: list[str] = []
    load = registry.load_target
    monkeypatch.setattr(registry, "load_target", lambda target: built.append(target) or load(target))
    monkeypatch.setattr(registry, "checked", lambda *_: pytest.fail("was checked again"))
    defended = apply_defence(clean, spec, seed=0)
    assert [target.partition(":")[2] for target in built] == ["HeuristicPerturbation", "Rounding", "RandomPerturbation"]
    assert len(defended.postprocessing_defences) == 3
