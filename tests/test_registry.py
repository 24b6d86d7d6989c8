"""Names: one rule for all of them, plug-ins through entry points, and one of each in a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.plugins import installed, write_distribution

from art_divqat.data.pools import POOLS
from art_divqat.data.sources import DATASETS
from art_divqat.defences.registry import DEFENCES
from art_divqat.errors import UserError
from art_divqat.models.registry import MODELS
from art_divqat.plan.config import make_config
from art_divqat.plan.presets import resolve
from art_divqat.registry import load_target, plugin_distributions
from art_divqat.victims.registry import VICTIMS

CODE = """
import numpy as np
from art_divqat.data import RawImages
from art_divqat.data.pools import PoolEntry
from art_divqat.data.sources import DatasetEntry
from art_divqat.defences.postprocessor import ProbabilityPostprocessor
from art_divqat.defences.registry import DefenceEntry
from art_divqat.models.registry import ModelEntry
from art_divqat.parameters import integer, real
from art_divqat.victims.registry import VictimEntry


def train(context, spec):
    classifier = context.fresh_classifier()
    classifier.fit(context.dataset.x_train, context.dataset.y_train, nb_epochs=spec.as_dict.get("rounds", 1))
    return classifier


def network(input_shape, nb_classes):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), nb_classes))


def squares(root, download):
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = rng.random((300, 1, 8, 8)).astype(np.float32) / 2
    x[np.arange(300), :, y, y] = 1
    return RawImages("another name", x, y, None, None, ("a", "b", "c"))


def stripes(shape, n, seed):
    return np.random.default_rng(seed).random((n, *shape), dtype=np.float32)


class Flatten(ProbabilityPostprocessor):
    params = ["share", "input_type"]
    parameters = {"share": real(0.5, 0, 1)}

    def __init__(self, share=0.5, **options):
        super().__init__(**options)
        self.share = share
        self._check_params()

    def _perturb(self, rows):
        return (rows * (1 - self.share) + self.share / rows.shape[1]).astype(rows.dtype)


VICTIM = VictimEntry("trained for a while", "my_plugin:train", {"rounds": integer(1, 1)}, baseline="standard")
MODEL = ModelEntry("one layer", network)
DATASET = DatasetEntry("noise with a dot", squares, pool="stripes")
POOL = PoolEntry("stripes", "my_plugin:stripes")
DEFENCE = DefenceEntry("flatter answers", "my_plugin:Flatten", Flatten.parameters)
"""
POINTS = {
    "victims": {"my-victim": "VICTIM", "no-victim": "MODEL", "lost-victim": "NOWHERE"},
    "models": {"one_layer": "MODEL"},
    "datasets": {"squares": "DATASET"},
    "pools": {"stripes": "POOL"},
    "defences": {"flatten": "DEFENCE"},
}
TABLES = (VICTIMS, DEFENCES, MODELS, DATASETS, POOLS)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    write_distribution(folder, "my-plugin", CODE, POINTS)
    return folder


@pytest.mark.parametrize(
    ("option", "given", "canonical"),
    [
        ("victims", ["Robust_Fast"], ["robust-fast:epsilon=0.2"]),
        ("defences", ["Reverse_Sigmoid: beta=1"], ["reverse-sigmoid:beta=1.0"]),
        ("model", "ResNet20", "resnet20"),
        ("model", "MobileNet_V2", "mobilenet-v2"),
        ("thief_model", "LeNet5", "lenet5"),
        ("dataset", "Fashion-MNIST", "fashion_mnist"),
        ("query_pool", "In_Distribution", "in-distribution"),
        ("query_pool", "KMNIST", "kmnist"),
    ],
)
def test_case_and_dashes_do_not_matter_and_the_journal_has_the_tables_form(
    option: str, given: Any, canonical: Any
) -> None:
    resolved = resolve(make_config({option: given, "baseline": False}))
    assert resolved.for_results()[option] == canonical


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.group)
def test_every_built_in_target_is_there(table: Any) -> None:
    for name in table:
        for field in ("train", "build", "read", "make"):
            target = getattr(table[name], field, None)
            assert target is None or callable(load_target(target)), name


def test_a_target_that_is_not_there_is_one_line() -> None:
    for target in ("art_divqat.nowhere:thing", "art_divqat.errors:Nothing"):
        with pytest.raises(UserError, match="cannot be loaded"):
            load_target(target)


def test_own_names_need_no_entry_points(monkeypatch: pytest.MonkeyPatch, plugin: Path) -> None:
    with installed(plugin, VICTIMS):
        monkeypatch.setattr("art_divqat.registry.metadata.entry_points", lambda **_: pytest.fail("were read"))
        assert VICTIMS["Robust_Fast"].adversarial
        assert "standard" in VICTIMS
        assert VICTIMS.origin("standard") is None


def test_plugged_in_names(plugin: Path) -> None:
    with installed(plugin, *TABLES):
        config = {"victims": ["My_Victim:rounds=2"], "model": "One-Layer", "dataset": "Squares"}
        resolved = resolve(make_config({**config, "defences": ["Flatten: share=1"], "baseline": False}))
        assert list(map(str, resolved.victims)) == ["my-victim:rounds=2"]
        assert list(map(str, resolved.defences)) == ["flatten:share=1.0"]
        assert (resolved.model, resolved.dataset, resolved.query_pool) == ("one_layer", "squares", "stripes")
        assert VICTIMS.origin("my-victim") == "my-plugin 1.2"
        assert plugin_distributions()["my-plugin"] == "1.2"
        with pytest.raises(UserError, match="'rounds' parameter of victim 'my-victim' must be an int of at least 1"):
            resolve(make_config({"victims": ["my-victim:rounds=0"]}))
        with pytest.raises(UserError, match="'share' parameter of defence 'flatten'"):
            resolve(make_config({"defences": ["flatten:share=2"]}))


def test_plug_ins_that_are_none_are_one_line_and_found_to_be_nothing(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed(plugin, *TABLES):
        with pytest.raises(UserError, match=r"'no-victim' of my-plugin 1\.2 is a ModelEntry: expected a .*VictimEntry"):
            VICTIMS["no-victim"]
        with pytest.raises(UserError, match=r"'lost-victim' of my-plugin 1\.2 cannot be loaded: AttributeError"):
            VICTIMS["lost-victim"]
        assert "cannot be loaded" in VICTIMS.summaries()["lost-victim"]
        # imported once, however often it is asked for
        monkeypatch.setattr(VICTIMS, "_load", lambda name: pytest.fail(f"{name} was loaded again"))
        assert VICTIMS.find("lost-victim") is None
        assert VICTIMS.find("never-heard-of") is None


@pytest.mark.slow
def test_one_of_each_goes_through_a_run(plugin: Path, tmp_path: Path) -> None:
    """In worker processes, which see entry points and nothing that was registered at run time."""
    command = [sys.executable, "-m", "art_divqat", "evaluate", "--quiet", "--jobs", "2", "--seeds", "1"]
    command += ["--budget", "40", "--answers", "soft", "--model", "one-layer", "--dataset", "squares"]
    command += ["--victim", "My-Victim:rounds=2", "--defence", "none", "--defence", "flatten:share=0.9"]
    path = os.pathsep.join([str(plugin), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "run")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert results["environment"]["packages"]["my-plugin"] == "1.2"
    assert results["config"]["query_pool"] == "stripes"
    assert {cell["victim"] for cell in results["cells"]} == {"standard", "my-victim:rounds=2"}
    distortion = {cell["defence"]: cell["metrics"]["l1_distortion"] for cell in results["cells"]}
    assert distortion["flatten:share=0.9"] > distortion["none"] == 0
