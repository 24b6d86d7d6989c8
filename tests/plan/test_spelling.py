"""Options in messages: every one of the command line has its spelling in Python."""

from __future__ import annotations

import inspect

import pytest
import typer

from art_divqat.api import audit_model
from art_divqat.cli.app import app
from art_divqat.plan.config import EvaluateConfig
from art_divqat.plan.spelling import in_python
from art_divqat.victims.external.settings import ExternalModel

# of the terminal alone
_NO_ARGUMENT = {"--dry-run", "--quiet", "--verbose", "--json", "--help"}


def options_of_audit() -> list[str]:
    command = typer.main.get_command(app).commands["audit"]  # type: ignore[attr-defined]
    return [text for each in command.params for text in (*each.opts, *each.secondary_opts) if text.startswith("--")]


@pytest.mark.parametrize("option", sorted(set(options_of_audit()) - _NO_ARGUMENT))
def test_every_option_of_an_audit_is_an_argument(option: str) -> None:
    spelled = in_python(f"Say {option}.").removeprefix("Say ").removesuffix(".")
    name = spelled.partition("=")[0]
    assert name in inspect.signature(audit_model).parameters or name in EvaluateConfig.model_fields
    if name == "external":
        assert spelled.split("'")[1] in ExternalModel.model_fields


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Use --repeat-queries paid, or --jobs 1.", "Use repeat_queries='paid', or jobs=1."),
        ("say --image-size, such as --image-size 224.", "say image_size, such as image_size=224."),
        ("normalisation (--mean, --std).", "normalisation (external={'mean': …}, external={'std': …})."),
        ("say --model NAME or --factory a:b", "say external={'architecture': …} NAME or external={'factory': …} a:b"),
        ("add --download, --no-attacker-labels", "add download=True, attacker_labels=False"),
        ("a --strange thing -- and x--budget", "a --strange thing -- and x--budget"),
        ("use --device cpu-like.", "use device cpu-like."),
    ],
)
def test_values_stay_with_their_options(message: str, expected: str) -> None:
    assert in_python(message) == expected
