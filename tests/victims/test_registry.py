"""Every kind of victim: its name, its baseline, and that it goes through a run, defended and attacked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.plugins import installed, write_distribution

from art_divqat.api import evaluate, prepare
from art_divqat.audit.train import train
from art_divqat.data.pools import POOLS
from art_divqat.defences.trainer import DivQATTrainer
from art_divqat.errors import UserError
from art_divqat.models.registry import MODELS
from art_divqat.plan.config import EvaluateConfig, make_config
from art_divqat.plan.presets import resolve
from art_divqat.report import render
from art_divqat.results.build import read_results
from art_divqat.results.journal import Journal
from art_divqat.results.probes import is_probe
from art_divqat.results.schema import Results
from art_divqat.specs import parse_spec
from art_divqat.victims.registry import (
    VICTIMS,
    baseline_of,
    known_victim,
)
from art_divqat.victims.specs import (
    VictimSpec,
    auxiliary_sources,
    parse_victim,
    plugin_origins,
    read_victim,
    with_baselines,
)

TRAINED = [name for name in VICTIMS if name != "external" and VICTIMS.origin(name) is None]


def tiny(**changes: Any) -> EvaluateConfig:
    values: dict[str, Any] = {
        "limit": 200,
        "budgets": [60],
        "answers": ["soft"],
        "seeds": 1,
        "victim_recipe": {"epochs": 2},
        "thief_recipe": {"epochs": 2},
        "evasion": {"images": 20, "steps": 2},
        "jobs": 1,
        "query_pool": "in-distribution",
        "model": "lenet5",
    }
    return make_config({**values, **changes})


def test_baselines() -> None:
    assert list(map(str, resolve(tiny(victims=["divqat"])).victims)) == ["quantized", "divqat:auxiliary=mixture"]
    assert list(map(str, with_baselines([read_victim("robust-divqat:epsilon=0.1")]))) == [
        "robust-quantized:epsilon=0.1",
        "robust-divqat:epsilon=0.1",
    ]
    assert baseline_of("robust:epsilon=0.2", ["standard", "robust:epsilon=0.2"]) == "standard"
    assert baseline_of("standard", ["standard"]) is None
    assert VictimSpec("quantized").parent == VictimSpec("standard")
    assert VictimSpec("robust").parent is None
    for name in VICTIMS:
        baseline = VICTIMS[name].baseline
        assert baseline is None or baseline in VICTIMS, name


def test_auxiliary_images_are_never_the_attackers() -> None:
    assert "mixture-without-photos" in str(resolve(tiny(victims=["divqat"], query_pool="photos")).victims[-1])
    with pytest.raises(UserError, match="are the attacker's own pool"):
        resolve(tiny(victims=["divqat:auxiliary=fashion_mnist"], dataset="mnist", query_pool="fashion_mnist"))
    for pool, mixture in (("photos", "without-noise"), ("noise", "without-strokes")):
        for text in (f"divqat:auxiliary=mixture-{mixture}", f"divqat:auxiliary=cifar10,mixture={mixture}"):
            with pytest.raises(UserError, match=f"holds the attacker's own pool .{pool}.: it must be without-{pool}"):
                resolve(tiny(victims=[text], query_pool=pool))
    with pytest.raises(UserError, match="did you mean"):
        resolve(tiny(victims=["divqat:auxilliary=noise"]))


@pytest.mark.parametrize(
    ("said", "pool", "canonical", "sources"),
    [
        # what stands in the store and in journals stays the same, text for text
        ("divqat", "in-distribution", "divqat:auxiliary=mixture", (None, ())),
        ("divqat:auxiliary=mixture", "mnist", "divqat:auxiliary=mixture", (None, ())),
        ("divqat", "photos", "divqat:auxiliary=mixture-without-photos", (None, ("photographs", "silhouettes"))),
        ("divqat", "noise", "divqat:auxiliary=mixture-without-noise", (None, ("noise",))),
        ("divqat:auxiliary=mixture-without-strokes", "mnist", "divqat:auxiliary=mixture-without-strokes",
         (None, ("strokes",))),
        # a name alone is no canonical text: it was, when images of a name replaced the mixture
        ("divqat:auxiliary=CIFAR10", "mnist", "divqat:auxiliary=cifar10,mixture=all", ("cifar10", ())),
        ("divqat:auxiliary=cifar10,mixture=all", "mnist", "divqat:auxiliary=cifar10,mixture=all", ("cifar10", ())),
        ("divqat:auxiliary=cifar10", "noise", "divqat:auxiliary=cifar10,mixture=without-noise",
         ("cifar10", ("noise",))),
        ("divqat:auxiliary=cifar10,mixture=without-strokes", "mnist",
         "divqat:auxiliary=cifar10,mixture=without-strokes", ("cifar10", ("strokes",))),
        ("divqat:auxiliary=cifar10,mixture=none", "noise", "divqat:auxiliary=cifar10,mixture=none", ("cifar10", None)),
    ],
)  # fmt: skip
def test_named_images_join_the_mixture(said: str, pool: str, canonical: str, sources: Any) -> None:
    assert str(parse_victim(said, epsilon=0.2, query_pool=pool)) == canonical
    assert str(parse_victim(canonical, epsilon=0.2, query_pool=pool)) == canonical
    assert auxiliary_sources(parse_spec(canonical)) == sources


def test_a_victim_of_a_version_in_which_named_images_stood_alone_is_not_served() -> None:
    with pytest.raises(KeyError):
        auxiliary_sources(parse_spec("divqat:auxiliary=cifar10"))


def test_a_journal_of_that_version_still_makes_its_report(tmp_path: Path) -> None:
    committed = Path(__file__).parents[2] / "evaluations" / "studies" / "divqat" / "in-distribution" / "journal.jsonl"
    header, lines = Journal(committed).read()
    journal = Journal(tmp_path / "journal.jsonl")
    for index, entry in enumerate([header, *lines]):
        renamed = json.loads(json.dumps(entry).replace("auxiliary=mixture", "auxiliary=cifar10"))
        journal.start(renamed) if index == 0 else journal.append(renamed)
    results = read_results(tmp_path)
    assert "divqat:auxiliary=cifar10" in {cell.victim for cell in results.cells}
    assert "divqat:auxiliary=cifar10" in render(results, "md")


@pytest.mark.slow
def test_named_images_are_trained_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("art_divqat.data.auxiliary.AUXILIARY_IMAGES", 90)
    original = DivQATTrainer.__init__

    def spy(self: DivQATTrainer, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        seen.append((len(self.auxiliary), self.auxiliary_mixture))

    monkeypatch.setattr(DivQATTrainer, "__init__", spy)
    for index, text in enumerate(("mixture", "noise", "noise,mixture=none", "mixture-without-photos")):
        config = tiny(victims=[f"divqat:auxiliary={text}"], baseline=False, evasion={"images": 0})
        train(prepare(config), tmp_path / str(index), store=tmp_path / "store")
    assert seen == [(90, False), (100, False), (90, False), (90, False)]
    weights = {next(tmp_path.glob(f"{index}/**/*.safetensors")).read_bytes() for index in range(4)}
    assert len(weights) == 4


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("alpha=-1", r"'alpha' parameter of victim 'divqat' must be a float in \[0, inf\). Got -1"),
        ("spread_penalty=nan", "spread_penalty"),
        ("confidence_penalty=-0.5", "confidence_penalty"),
        ("auxiliary_fraction=0", "auxiliary_fraction"),
        ("temperature=0", "temperature"),
        ("max_divergence=0", "max_divergence"),
        ("divergence=tv", "one of 'js', 'kl', 'kl-reverse'"),
        ("auxiliary=mixture-without-cats", "auxiliary mixture"),
        ("auxiliary=mixture-none", "auxiliary mixture"),
        ("auxiliary=noise,mixture=without-cats", "Unknown mixture 'without-cats'"),
        ("mixture=none", "none are named: name a data set or pool"),
        ("auxiliary=mixture,mixture=without-noise", "or write auxiliary=mixture-without-noise"),
    ],
)
def test_bad_parameters_are_refused_before_anything_is_trained(parameter: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(tiny(victims=[f"divqat:{parameter}"]))


def test_what_a_victim_accepts_is_what_the_trainer_accepts() -> None:
    import inspect

    from art_divqat.defences.trainer.divqat_parameters import DIVERGENCES, DIVQAT_NUMBERS

    taken = inspect.signature(DivQATTrainer).parameters
    assert {name: number.default for name, number in DIVQAT_NUMBERS.items()} == {
        name: taken[name].default for name in DIVQAT_NUMBERS
    }
    assert set(DIVQAT_NUMBERS) == set(taken) - {"classifier", "auxiliary", "auxiliary_mixture", "options"}
    for kind in DIVERGENCES:
        DIVQAT_NUMBERS["divergence"].check("divqat", "divergence", kind)


@pytest.mark.parametrize(
    ("victim", "message"),
    [
        ("quantized:backend=zzz", "'backend' parameter of victim 'quantized' must be one of 'fx', 'pt2e'. Got 'zzz'"),
        ("ptq:backend=1", "'backend' parameter of victim 'ptq'"),
        ("divqat:engine=tpu", "'engine' parameter of victim 'divqat' must be one of 'x86', .*'openvino'. Got 'tpu'"),
        ("quantized:epochs=2.5", "'epochs' parameter of victim 'quantized' must be an int of at least 1"),
        ("robust:steps=0", "'steps' parameter of victim 'robust'"),
        ("robust-fast:steps=3", "Victim 'robust-fast' has no parameter 'steps'"),
        ("robust-quantized:epsilon=8", "'epsilon' parameter of victim 'robust-quantized' .* write 8 / 255"),
        ("divqat:auxiliary=3", "'auxiliary' parameter of victim 'divqat'"),
        ("divqat:temperature=-1", "'temperature' parameter of victim 'divqat'"),
        ("external", "is no model: give file:PATH"),
        ("External:name=a,sha256=xab", "is no model: give file:PATH"),
    ],
)
def test_nothing_is_trained_or_written_for_a_bad_victim(victim: str, message: str, tmp_path: Path) -> None:
    store, output = tmp_path / "store", tmp_path / "run"
    for run in (evaluate, train):
        with pytest.raises(UserError, match=message) as raised:
            run(prepare(tiny(victims=[victim])), output, store=store)
        assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_runtime_without_its_library_is_refused_at_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs onnxruntime: pip install 'art-divqat\[onnx\]'"):
        resolve(tiny(victims=["quantized:engine=onnxruntime"]))
    assert str(resolve(tiny(victims=["quantized:engine=x86"])).victims[-1]) == "quantized:engine=x86"
    assert str(resolve(tiny(victims=["quantized"])).victims[-1]) == "quantized"


def test_a_backend_without_its_library_is_refused_at_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("art_divqat.quantization._names.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'art-divqat\[pt2e\]'"):
        resolve(tiny(victims=["quantized:backend=pt2e"]))
    assert str(resolve(tiny(victims=["quantized:backend=fx"])).victims[-1]) == "quantized:backend=fx"


def test_the_text_that_names_a_victim_in_the_store_is_as_ever() -> None:
    def canonical(text: str) -> str:
        return str(parse_victim(text, epsilon=0.2, query_pool="photos"))

    assert canonical("divqat:alpha=1,temperature=4.0") == (
        "divqat:alpha=1,auxiliary=mixture-without-photos,temperature=4.0"
    )
    assert canonical("ROBUST_DIVQAT: epochs=3,epsilon=1") == (
        "robust-divqat:auxiliary=mixture-without-photos,epochs=3,epsilon=1.0"
    )
    assert canonical("robust:steps=3") == "robust:epsilon=0.2,steps=3"


def test_what_is_true_of_victims() -> None:
    adversarial = {name for name in VICTIMS if VICTIMS[name].adversarial}
    assert adversarial == {name for name in VICTIMS if name.startswith("robust")}
    quantized = {name for name in VICTIMS if VICTIMS[name].quantized}
    assert quantized == {"ptq", "quantized", "divqat", "robust-quantized", "robust-divqat"}
    assert quantized == {name for name in VICTIMS if VICTIMS[name].parent is not None}


def test_a_victim_of_an_old_run_that_is_not_known_here() -> None:
    assert known_victim("robust-fast:epsilon=0.2") is VICTIMS["robust-fast"]
    assert known_victim("somebody-elses:depth=3") is None
    assert known_victim("?") is None
    assert baseline_of("somebody-elses", ["standard", "somebody-elses"]) is None


def test_plug_ins_are_part_of_a_victims_identity(tmp_path: Path) -> None:
    code = (
        "from art_divqat.models.registry import ModelEntry\n"
        "from art_divqat.data.pools import PoolEntry\n"
        "from art_divqat.parameters import text\n"
        "from art_divqat.victims.registry import VictimEntry\n"
        "ROOT = VictimEntry('a parent', 'nowhere:train')\n"
        "LEAF = VictimEntry('a child', 'nowhere:train', {'auxiliary': text('mixture')}, parent='my-root')\n"
        "MODEL = ModelEntry('a network', 'nowhere:build')\n"
        "POOL = PoolEntry('images', 'nowhere:make')\n"
    )
    points = {"victims": {"my-root": "ROOT", "my-leaf": "LEAF"}, "models": {"mine": "MODEL"}, "pools": {"own": "POOL"}}
    write_distribution(tmp_path, "other-plugin", code, points)
    with installed(tmp_path, VICTIMS, MODELS, POOLS):
        victim = parse_victim("my-leaf:auxiliary=own", epsilon=0.2, query_pool="photos")
        assert plugin_origins(victim, "mine") == {
            "plugins": dict.fromkeys(["model mine", "pool own", "victim my-leaf", "victim my-root"], "other-plugin 1.2")
        }
        assert plugin_origins(VictimSpec("standard"), "mine") == {"plugins": {"model mine": "other-plugin 1.2"}}
    for name in TRAINED:
        spec = parse_victim(name, epsilon=0.2, query_pool="photos")
        assert plugin_origins(spec, "small-cnn") == {}, name
    assert plugin_origins(read_victim("external:name=a,sha256=xab"), "small-cnn") == {}


@pytest.fixture(scope="module")
def every_victim(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    store = tmp_path_factory.mktemp("store")
    config = tiny(victims=TRAINED)
    return store, evaluate(prepare(config), tmp_path_factory.mktemp("run") / "all", store=store)


@pytest.mark.slow
def test_every_victim_goes_through_a_run(every_victim: tuple[Path, Results], tmp_path: Path) -> None:
    store, results = every_victim
    assert {cell.victim.partition(":")[0] for cell in results.cells} == set(TRAINED)
    for cell in results.cells:
        assert all(value is not None and np.isfinite(value) for value in cell.metrics.values()), cell
    # from the store, quantized ones included, the numbers are the same to the last digit
    again = evaluate(prepare(tiny(victims=TRAINED)), tmp_path / "again", store=store)
    for first, second in zip(results.cells, again.cells, strict=True):
        first.metrics.pop("latency_us")
        second.metrics.pop("latency_us")
        assert first.metrics == second.metrics


@pytest.mark.slow
def test_train_keeps_what_evaluate_would_use(every_victim: tuple[Path, Results], tmp_path: Path) -> None:
    store, _ = every_victim
    config = prepare(tiny(victims=["robust"], baseline=False))
    measured = train(config, tmp_path / "robust", store=store)
    assert set(measured) == {"victim", "victim_accuracy", "victim_robust_accuracy"}
    assert sorted(path.name for path in (tmp_path / "robust").iterdir()) == ["victim.json", "weights.safetensors"]
    with pytest.raises(UserError, match="is there already"):
        train(config, tmp_path / "robust", store=store)
    with pytest.raises(UserError, match="One victim is trained at a time"):
        train(prepare(tiny(victims=["robust", "standard"])), tmp_path / "two", store=store)


@pytest.mark.slow
def test_defences_side_by_side(every_victim: tuple[Path, Results], tmp_path: Path) -> None:
    store, _ = every_victim
    config = tiny(
        victims=["standard"],
        defences=["none", "heuristic:beta=0.9", "labels", "mad:epsilon=0.5", "random:epsilon=0.5"],
        attacks=["knockoff", "knockoff:recovery=invert", "knockoff:recovery=recentre"],
        answers=["soft", "hard"],
    )
    results = evaluate(prepare(config), tmp_path / "run", store=store)
    # invert applies to the heuristic alone
    assert [cell.defence for cell in results.cells if "invert" in cell.attack] == ["heuristic:beta=0.9"]
    assert {cell.answers for cell in results.cells if "recovery" in cell.attack} == {"soft"}
    by_defence = {cell.defence: cell.metrics for cell in results.cells}
    assert by_defence["none"]["l1_distortion"] == 0
    for name in ("heuristic:beta=0.9", "mad:epsilon=0.5", "random:epsilon=0.5", "labels"):
        assert by_defence[name]["l1_distortion"] > 0, name  # type: ignore[operator]
    assert by_defence["mad:epsilon=0.5"]["l1_distortion"] == pytest.approx(0.5, abs=1e-3)
    # ε (1 − y_j), with j any class but the first
    assert 0.3 < by_defence["random:epsilon=0.5"]["l1_distortion"] <= 0.5 + 1e-6  # type: ignore[operator]
    assert by_defence["labels"]["label_flip_rate"] == 0
    labels_alone = [
        c.metrics["thief_accuracy"] for c in results.cells if c.defence == "labels" and c.attack == "knockoff"
    ]
    assert labels_alone[0] == labels_alone[1]
    effects = [c for c in results.comparisons if c.kind == "defence_effect" and not is_probe(c.attack)]
    assert {c.defence for c in effects} == {"heuristic:beta=0.9", "labels", "mad:epsilon=0.5", "random:epsilon=0.5"}
    for effect in effects:
        # without a defence there is nothing to invert
        bare = effect.attack.replace(":recovery=invert", "")
        cells = {(c.defence, c.attack): c for c in results.cells if c.answers == effect.answers}
        ours, theirs = cells[effect.defence, effect.attack], cells["none", bare]
        assert effect.value is not None
        expected = ours.metrics[effect.metric] - theirs.metrics[effect.metric]  # type: ignore[operator]
        assert effect.value.mean == pytest.approx(expected)


def test_an_attack_without_a_defence_to_undo() -> None:
    with pytest.raises(UserError, match="there is none to undo"):
        resolve(tiny(victims=["standard"], attacks=["knockoff:recovery=dae"]))


def test_the_gate(tmp_path: Path) -> None:
    config = tiny(victims=["standard"], fail_on=["victim_accuracy>=0.0", "l1_distortion>0.5"], evasion={"images": 0})
    results = evaluate(prepare(config), tmp_path / "run", store=tmp_path / "store")
    assert not results.gate.passed
    assert [condition.failed for condition in results.gate.conditions] == [True, False]
    with pytest.raises(UserError, match="agreement"):
        resolve(tiny(fail_on=["agrement>0.5"]))


def test_an_adaptive_attack_on_a_pool_without_labels(tmp_path: Path) -> None:
    config = tiny(victims=["standard"], attacks=["knockoff-adaptive"], query_pool="photos")
    with pytest.raises(UserError, match="needs a query pool with labels"):
        evaluate(prepare(config), tmp_path / "run", store=tmp_path / "store")
    assert not (tmp_path / "run").exists()
