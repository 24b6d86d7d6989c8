"""Configurations: one model for the command line, files and Python; bad values name themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from art_divqat.attacks.extraction.registry import read_attack
from art_divqat.defences.registry import read_defence
from art_divqat.errors import UserError
from art_divqat.estimators import TrainingRecipe
from art_divqat.plan.cells import applies, plan_cells
from art_divqat.plan.config import EvaluateConfig, Recipe, ResolvedConfig, make_config, read_config
from art_divqat.plan.presets import PRESETS, resolve
from art_divqat.plan.written import write_config
from art_divqat.specs import parse_spec


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"budgets": [0]}, "positive numbers of queries, got 0"),
        ({"budgets": [-5]}, "positive"),
        ({"budgets": [200, 100]}, "ascending budgets, each once, got 200,100"),
        ({"budgets": [100, 100]}, "ascending"),
        ({"budgets": []}, "positive"),
        ({"epsilon": 8}, r"in units of \[0, 1\] pixels \(8 of 255 is 0.0314\), got 8"),
        ({"epsilon": -0.1}, "got -0.1"),
        ({"epsilon": float("nan")}, "finite"),
        ({"seeds": 0}, "Option seeds"),
        ({"limit": 0}, "Option limit"),
        ({"image_size": 0}, "sides from 1 to 4,096 pixels, got 0"),
        ({"image_size": "224x0"}, "sides from 1 to 4,096 pixels, got '224x0'"),
        ({"image_size": "1e9"}, "N or HxW in pixels, such as 224, got '1e9'"),
        ({"image_size": "x"}, "N or HxW"),
        ({"image_size": True}, "N or HxW"),
        ({"image_size": 22.4}, "N or HxW"),
        ({"image_size": [1, 2, 3]}, "N or HxW"),
        ({"image_fit": "pad"}, "Option image_fit"),
        ({"image_channels": 4}, "Option image_channels"),
        ({"budget": [1]}, "there is no option 'budget': did you mean budgets"),
        ({"answers": ["loud"]}, "soft, hard, or top-K"),
        ({"victims": []}, "at least one"),
        ({"victims": ["standard", "standard"]}, "each may be given once"),
        ({"preset": "fast"}, "Option preset"),
        ({"thief_recipe": {"epochs": 0}}, r"thief_recipe\.epochs"),
    ],
)
def test_bad_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make_config(values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [224, "224", " 224 ", "224x224", "224×224", "224X224", [224, 224], (224,)])
def test_a_size_of_images_has_many_spellings_and_one_form(given: Any, tmp_path: Path) -> None:
    config = make_config({"image_size": given})
    assert config.image_size == (224, 224)
    assert make_config({"image_size": "240x320"}).image_form.size == (240, 320)
    (tmp_path / "config.yaml").write_text(write_config(config), encoding="utf-8")
    assert make_config(read_config(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": "digit"}, "did you mean digits"),
        ({"victims": ("robus",)}, "did you mean robust"),
        ({"victims": ("robust:epsilon=8",)}, r"must be a float in \(0, 1\]"),
        ({"victims": ("standard:epsilon=0.1",)}, "has no parameter 'epsilon'"),
        ({"victims": ("robust:epsilon",)}, "is not parameter=value"),
        ({"attacks": ("knokoff",)}, "did you mean knockoff"),
        ({"attacks": ("knockoff:recovery=top_q",)}, "Unknown recovery 'top_q': did you mean top-k"),
        ({"attacks": ("knockoff", "Knockoff")}, "each may be given once, got knockoff, knockoff"),
        ({"model": "lenet"}, "did you mean lenet5"),
        ({"query_pool": "nois"}, "did you mean noise"),
    ],
)
def test_unknown_names(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(EvaluateConfig(**values))


def test_attacks_are_named_as_their_table_names_them() -> None:
    resolved = resolve(EvaluateConfig(attacks=("Knockoff", "knockoff_adaptive:recovery=Top_K,k=2", "DFME")))
    assert list(map(str, resolved.attacks)) == ["knockoff", "knockoff-adaptive:k=2,recovery=top-k", "dfme"]


@pytest.mark.parametrize(
    ("attack", "defence", "answers", "expected"),
    [
        ("knockoff", "none", "hard", True),
        ("knockoff:recovery=invert", "heuristic:beta=0.9", "soft", True),
        ("knockoff:recovery=invert", "heuristic:beta=0.9", "hard", False),
        ("knockoff:recovery=invert", "heuristic:beta=0.9+rounding:decimals=2", "soft", False),
        ("knockoff:recovery=invert", "reverse-sigmoid", "soft", False),
        ("knockoff:recovery=dae", "heuristic:beta=0.9+rounding:decimals=2", "soft", True),
        ("knockoff:recovery=bayes", "rounding:decimals=2+mad:epsilon=0.5", "soft", False),
        ("knockoff:recovery=bayes", "none", "soft", False),
        ("knockoff:recovery=recentre", "none", "soft", True),
        ("knockoff:recovery=recentre", "none", "top-3", False),
        ("knockoff:recovery=complement", "adaptive-misinformation:tau=0.9", "soft", True),
        ("knockoff:recovery=complement", "adaptive-misinformation:tau=0.9", "hard", False),
        ("knockoff:recovery=complement", "mad:epsilon=0.5", "soft", False),
        ("knockoff:recovery=complement", "none", "soft", False),
        ("knockoff:recovery=labels", "none", "top-3", True),
        # plug-ins that are not installed here, in a run that is only read
        ("elsewhere:tries=3", "none", "soft", True),
        ("knockoff:recovery=elsewhere", "heuristic:beta=0.9", "hard", True),
        ("knockoff:recovery=invert", "elsewhere", "soft", True),
    ],
)
def test_recoveries_meet_what_they_work_on(attack: str, defence: str, answers: str, expected: bool) -> None:
    assert applies(read_attack(attack), read_defence(defence), answers) is expected


def test_one_of_a_list_may_stand_alone() -> None:
    found = make_config({"budgets": 200, "attacks": "copycat", "answers": "hard", "victims": "ptq", "defences": "none"})
    assert found.budgets == (200,)
    assert (found.attacks, found.answers, found.victims) == (("copycat",), ("hard",), ("ptq",))
    with pytest.raises(UserError, match="expected positive numbers of queries, got 0"):
        make_config({"budgets": 0})
    for value in (True, 2.5, {"a": 1}):
        with pytest.raises(UserError, match="Option budgets"):
            make_config({"budgets": value})


def test_the_first_line_says_how_to_run_it_again() -> None:
    path = Path("my runs/a/config.yaml")
    live = make_config({"external": {}})
    file = make_config({"external": {"source": "m.pt"}})
    lines = [
        write_config(config, path).splitlines()[0]
        for config in (make_config({}), live, file, file.model_copy(update={"trust_code": True}))
    ]
    again = "with: art-divqat audit --config 'my runs/a/config.yaml'"
    assert lines[0].endswith("with: art-divqat evaluate --config config.yaml")
    assert lines[1].endswith("with that object: art_divqat.audit_model(model, config='my runs/a/config.yaml')")
    assert lines[2].endswith(again)
    assert lines[3].endswith(f"{again} --trust-code")


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10", "npz:a.npz"])
def test_presets_resolve_to_themselves(preset: str, dataset: str) -> None:
    resolved = resolve(make_config({"preset": preset, "dataset": dataset, "victims": ["robust"]}))
    assert resolve(make_config(resolved.model_dump())) == resolved
    assert all(value is not None for value in resolved.for_results().values() if value != resolved.limit)


def test_what_is_written_back_repeats_the_run(tmp_path: Path) -> None:
    resolved = resolve(make_config({"victims": ["robust:epsilon=0.1"], "budgets": [10, 20], "seeds": 2}))
    path = tmp_path / "config.yaml"
    path.write_text(write_config(resolved))
    assert resolve(make_config(read_config(path))) == resolved
    assert next(cell.id for cell in plan_cells(resolved)) == "digits|standard|none|knockoff|soft|10|0"


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('dataset = "digits"\nbudgets = [5]\n')
    (tmp_path / "a.json").write_text('{"seeds": 2}')
    assert make_config(read_config(tmp_path / "a.toml")).budgets == (5,)
    assert make_config(read_config(tmp_path / "a.json")).seeds == 2
    (tmp_path / "bad.yaml").write_text("a: [1")
    (tmp_path / "list.yaml").write_text("- 1")
    (tmp_path / "code.yaml").write_text("dataset: !!python/object/apply:os.system ['true']")
    for name, message in (
        ("bad.yaml", "is not valid yaml"),
        ("list.yaml", "holds no options"),
        ("code.yaml", "is not valid yaml"),
        ("none.yaml", "cannot be read"),
    ):
        with pytest.raises(UserError, match=message):
            read_config(tmp_path / name)


def test_specs() -> None:
    assert str(parse_spec("a:z=1,b=true,c=x")) == "a:b=true,c=x,z=1"
    assert parse_spec("a:x=1e-3").as_dict == {"x": 0.001}
    for bad in ("", ":x=1", "a:x=1,x=2", "a:=1", "a:x="):
        with pytest.raises(UserError):
            parse_spec(bad)


def test_a_recipe_of_the_configuration_is_a_training_recipe() -> None:
    """Two classes on purpose (only one of them requires the epochs), with one list of fields and defaults."""
    fields = {field.name: field.default for field in dataclasses.fields(TrainingRecipe)}
    assert list(Recipe.model_fields) == list(fields)
    planned = Recipe(epochs=fields["epochs"])
    assert {name: getattr(planned, name) for name in fields} == fields
    assert planned.model_dump() == TrainingRecipe().as_dict()


def test_an_attackers_own_images_are_written_down_only_where_there_are_some() -> None:
    without = resolve(make_config({"attacker_images": 0, "attacker_labels": True}))
    assert without == resolve(make_config({}))
    for written in (write_config(without), str(without.for_results()), without.model_dump_json()):
        assert "attacker" not in written
    some = resolve(make_config({"attacker_images": 5, "attacker_labels": False}))
    values = some.for_results()
    assert (values["attacker_images"], values["attacker_labels"]) == (5, False)
    assert ResolvedConfig.model_validate(values).for_results() == values
    assert "attacker_labels" not in resolve(make_config({"attacker_images": 5})).for_results()


@pytest.mark.parametrize("value", [-1, 2.5, "many"])
def test_a_number_of_own_images_that_is_none(value: Any) -> None:
    with pytest.raises(UserError, match="Option attacker_images"):
        make_config({"attacker_images": value})


def test_an_attack_that_asks_nothing_has_one_cell_a_seed_and_defence() -> None:
    config = resolve(
        make_config(
            {
                "attacks": ["knockoff", "own-augmented"],
                "attacker_images": 20,
                "budgets": [10, 20],
                "defences": ["none", "labels"],
                "seeds": 3,
            }
        )
    )
    cells = plan_cells(config)
    alone = [cell for cell in cells if not cell.attack.asks_victim]
    assert [(str(cell.attack), cell.answers, cell.budget) for cell in alone] == [("own-images", "none", 0)] * 6
    assert len({cell.id for cell in cells}) == len(cells) == 6 + 3 * 2 * 2 * 2 * 2
    # the first that a reader sees of a victim under a defence
    assert not cells[0].attack.asks_victim


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"attacker_images": 9}, ["own-images", "knockoff", "scout"]),
        (
            {"attacker_images": 9, "attacks": ["knockoff", "own-images:variants=50"]},
            ["own-images:variants=50", "knockoff"],
        ),
        ({"attacker_images": 9, "baseline": False}, ["knockoff", "scout"]),
        ({"attacker_images": 9, "attacker_labels": False}, ["knockoff", "scout"]),
        ({}, ["knockoff", "scout"]),
    ],
)
def test_what_the_images_alone_are_worth_is_measured_too(values: dict[str, Any], expected: list[str]) -> None:
    assert [str(attack) for attack in resolve(make_config(values)).attacks] == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attacks": ["own-augmented"]}, "needs images of the attacker's own: say how many with --attacker-images"),
        ({"attacks": ["jbda:seeds=own"]}, "'jbda:seeds=own' needs images"),
        ({"attacks": ["semi-supervised"], "attacker_images": 5, "attacker_labels": False}, "true labels"),
    ],
)
def test_an_attack_without_the_images_that_it_needs(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        resolve(make_config(values))
    assert "\n" not in str(error.value)


def test_later_options_of_recipes_are_written_down_only_where_they_say_something() -> None:
    usual = {"epochs": 1, "augmentation": "none", "warm_up": 0.0, "label_smoothing": 0, "precision": "float32"}
    old = {"epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "schedule"}
    for recipe in ({"epochs": 1}, usual, {**usual, "cuda_graphs": False}):
        values = resolve(make_config({"victim_recipe": recipe})).for_results()
        assert set(values["victim_recipe"]) == set(values["thief_recipe"]) == old
    used = {"epochs": 1, "augmentation": "crop-flip", "warm_up": 0.1, "label_smoothing": 0.1, "precision": "bfloat16"}
    resolved = resolve(make_config({"thief_recipe": {**used, "cuda_graphs": True}}))
    written = resolved.for_results()["thief_recipe"]
    assert set(written) - old == {*used, "cuda_graphs"} - {"epochs"}
    assert make_config({"thief_recipe": written}).thief_recipe == resolved.thief_recipe


@pytest.mark.parametrize(
    "wrong", [{"augmentation": "rotate"}, {"warm_up": 1}, {"label_smoothing": -1}, {"precision": 16}]
)
def test_bad_options_of_recipes_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"Option victim_recipe.{next(iter(wrong))}: "):
        make_config({"victim_recipe": {"epochs": 1, **wrong}})


def test_where_cells_run_is_no_part_of_the_numbers(tmp_path: Path) -> None:
    here = resolve(make_config({}))
    there = resolve(make_config({"executor": "ray", "address": "head:6379", "gpus_per_cell": 0.5, "victim_store": "s"}))
    assert there.for_results() == here.for_results()
    # a configuration written before there were engines is the same file still
    for option in ("executor", "address", "gpus_per_cell", "victim_store"):
        assert option not in write_config(here)
    path = tmp_path / "config.yaml"
    path.write_text(write_config(there))
    assert resolve(make_config(read_config(path))) == there


@pytest.mark.parametrize(
    "options",
    [
        {"address": "head:6379"},
        {"gpus_per_cell": 0.5},
        {"executor": "dask"},
        {"executor": "ray", "gpus_per_cell": 1.5},
        {"executor": "ray", "gpus_per_cell": -1},
        {"executor": "ray", "address": ""},
        {"victim_store": ""},
    ],
)
def test_options_of_an_engine_that_cannot_be_are_one_line(options: dict[str, Any]) -> None:
    with pytest.raises(UserError) as error:
        make_config(options)
    assert "\n" not in str(error.value)
    assert any(name in str(error.value).replace("-", "_") for name in options)
