"""What is asked for becomes values once: every text is parsed at the door, and nowhere behind it."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import TypeVar, cast

import pytest

from art_divqat import specs
from art_divqat.audit.costs import Costs
from art_divqat.audit.preflight import check_attacks
from art_divqat.audit.tasks import MeasureCell, PrepareVictim
from art_divqat.plan import presets
from art_divqat.plan.cells import plan_cells
from art_divqat.plan.config import ResolvedConfig, make_config, read_config
from art_divqat.plan.presets import resolve
from art_divqat.victims.serving import known_to_the_attacker

T = TypeVar("T")
STUDY = Path(__file__).parents[2] / "evaluations" / "studies" / "defences" / "config.yaml"
DATA = {"dataset": {"train": 9}, "evasion_images": 9, "pool": {"labelled": True, "images": 50_000}}


def sent(value: T) -> T:
    """As a worker gets it."""
    return cast(T, pickle.loads(pickle.dumps(value)))  # noqa: S301


def test_every_text_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    parse = specs.parse_spec
    for name, module in list(sys.modules.items()):
        if name.startswith("art_divqat") and getattr(module, "parse_spec", None) is parse:
            monkeypatch.setattr(module, "parse_spec", lambda text: parsed.append(text) or parse(text))
    asked = make_config({**read_config(STUDY), "query_pool": "mnist"})
    config = resolve(asked)
    links = [link for defence in asked.defences for link in defence.split("+")]
    assert sorted(parsed) == sorted([*asked.victims, *links, *asked.attacks])
    parsed.clear()
    # what a run does with them before it computes anything
    plan, costs = plan_cells(config), Costs(config, DATA)
    check_attacks(config, DATA)
    for cell in sent(plan):
        assert cell.id
        assert MeasureCell(cell).description
        assert costs.of_cell(cell) + costs.of_victim((cell.victim, cell.seed)) > 0
        assert PrepareVictim(cell.victim, cell.seed).victim.entry.summary
        assert (known_to_the_attacker(cell.defence, None, 0) is None) is (
            not cell.defence.rebuildable or not cell.defence.links
        )
    assert parsed == []


def test_values_are_written_as_text_and_survive_the_way_to_a_worker() -> None:
    config = resolve(
        make_config(
            {
                "victims": ["Robust:epsilon=0.10"],
                "defences": ["none", "Heuristic:beta=1+rounding"],
                "attacks": ["knockoff_adaptive:recovery=Average,step=8"],
            }
        )
    )
    written = config.model_dump(mode="json")
    assert written["victims"] == ["standard", "robust:epsilon=0.1"]
    assert written["defences"] == ["none", "heuristic:beta=1.0+rounding"]
    assert written["attacks"] == ["knockoff-adaptive:recovery=average,step=8"]
    assert ResolvedConfig.model_validate(written) == config
    there = sent(config)
    assert there == config
    for (attack,) in (there.attacks, ResolvedConfig.model_validate(written).attacks):
        assert attack.entry is config.attacks[0].entry
        assert attack.own == {"reward": "all", "step": 8, "replacement": False}
        assert (attack.recovery, attack.theirs, attack.queries_per_image) == ("average", {"repeats": 4}, 4)


def test_a_run_that_is_only_read_keeps_the_texts_of_what_is_not_known_here() -> None:
    names = {
        "victims": ["somebody-elses:depth=03", "??", "robust:epsilon=0.20"],
        "defences": ["none", "elsewhere:a=1+rounding", "rounding:decimals=99", "rounding:decimals=02"],
        "attacks": ["elsewhere:recovery=dae,pairs=500", "knockoff:recovery=nowhere", "knockoff:recovery=dae", "a:b"],
    }
    written = {**resolve(make_config({"budgets": [9], "seeds": 1, "answers": ["soft"]})).model_dump(), **names}
    config = ResolvedConfig.model_validate(written)
    assert {key: value for key, value in config.for_results().items() if key in names} == names
    found = {cell.id for cell in plan_cells(config)}
    every = {
        f"digits|{victim}|{defence}|{attack}|soft|9|0"
        for victim in names["victims"]
        for defence in names["defences"]
        for attack in names["attacks"]
    }
    # the only one of which it is known that there is nothing to undo
    assert every - found == {f"digits|{victim}|none|knockoff:recovery=dae|soft|9|0" for victim in names["victims"]}
    assert found <= every


@pytest.mark.parametrize(
    ("options", "side", "models"),
    [
        ({"dataset": "cifar10"}, None, ("resnet20", "resnet20")),
        ({"dataset": "cifar10"}, 64, ("resnet20", "resnet20")),
        ({"dataset": "npz:a.npz"}, 65, ("resnet18", "resnet18")),
        ({"dataset": "digits", "image_size": 224}, None, ("resnet18", "resnet18")),
        ({"dataset": "npz:a.npz", "image_size": "224x48"}, 224, ("resnet20", "resnet20")),
        ({"dataset": "npz:a.npz", "preset": "paper"}, 32, ("resnet34", "vgg16")),
        ({"dataset": "npz:a.npz", "preset": "paper"}, 224, ("resnet34", "resnet34")),
        ({"dataset": "npz:a.npz", "model": "resnet20"}, 224, ("resnet20", "resnet20")),
        ({"dataset": "cifar10", "thief_weights": "ImageNet"}, 32, ("resnet20", "torchvision:resnet18")),
        ({"dataset": "npz:a.npz", "weights": "imagenet"}, 224, ("resnet18", "resnet18")),
        ({"dataset": "npz:a.npz", "weights": "imagenet", "preset": "paper"}, 224, ("resnet34", "resnet34")),
        (
            {
                "dataset": "npz:a.npz",
                "weights": "imagenet",
                "model": "torchvision:resnet50",
                "thief_weights": "imagenet",
            },
            32,
            ("torchvision:resnet50", "torchvision:resnet50"),
        ),
    ],
)
def test_networks_by_the_size_of_images(
    options: dict[str, object], side: int | None, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presets, "carried_is_at_hand", lambda: False)
    config = resolve(make_config(options), side)
    assert (config.model, config.thief_model) == models
    # what was resolved stays what it is, whatever is known of the images
    again = resolve(make_config(config.model_dump()))
    assert (again.model, again.thief_model) == models


@pytest.mark.parametrize("preset", ["quick", "standard", "paper"])
def test_what_is_tuned_from_public_weights_is_trained_more_gently(preset: str) -> None:
    def rates(**options: object) -> tuple[float, float]:
        config = resolve(make_config({"dataset": "npz:a.npz", "preset": preset, "model": "resnet18", **options}), 96)
        assert resolve(make_config(config.model_dump()), 96) == config
        return config.victim_recipe.learning_rate, config.thief_recipe.learning_rate

    plain = rates(thief_model="resnet18")
    public = {"weights": "imagenet", "thief_weights": "imagenet"}
    assert rates(**public, training="probe") == plain
    gentle = rates(**public, thief_training="fine-tune")
    given = {"epochs": 1, "learning_rate": 0.5}
    if preset == "paper":
        # its schedules are what they are
        assert gentle == plain
    else:
        assert gentle == (1e-3, 1e-3)
        assert rates(**public)[1] == plain[1] == 2e-3
    assert rates(**public, thief_training="fine-tune", thief_recipe=given, victim_recipe=given) == (0.5, 0.5)


@pytest.mark.parametrize(("side", "thief"), [(64, "resnet20"), (65, "timm:tf_efficientnet_lite0")])
def test_thieves_of_photographs_begin_from_what_is_installed(
    side: int, thief: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if thief.startswith("timm:"):
        pytest.importorskip("timm", reason="the extra public-weights is not installed")
    monkeypatch.setattr(presets, "carried_is_at_hand", lambda: True)
    config = resolve(make_config({"dataset": "npz:a.npz"}), side)
    assert config.thief_model == thief
    assert (config.thief_weights is None) is (side == 64)
    assert resolve(make_config(config.model_dump()), side) == config
    asked = resolve(make_config({"dataset": "npz:a.npz", "thief_model": "resnet18"}), side)
    assert (asked.thief_model, asked.thief_weights) == ("resnet18", None)


def test_a_promise_of_time_names_the_data_that_it_holds_for() -> None:
    promises = [
        text for text in presets.PRESETS.values() if any(word in text for word in ("minutes", "hours", "laptop"))
    ]
    assert promises
    # a promise for no data is read as one for any
    assert all(", PGD" in text and "for digits, " in text for text in promises)
