"""`art-divqat audit MODEL --data D`: measure how easily one's own model is stolen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from art_divqat.cli import common, options
from art_divqat.errors import UserError

if TYPE_CHECKING:
    from art_divqat.plan.config import EvaluateConfig

_ENDPOINT = "An endpoint"


def audit(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A file, a folder of a saved classifier, or an http(s) address; else what --config names.",
            show_default=False,
        ),
    ] = None,
    dataset: options.AuditedData = None,
    architecture: Annotated[
        str | None,
        typer.Option("--model", help="Architecture that a state dict belongs to.", rich_help_panel=options.VICTIM),
    ] = None,
    factory: Annotated[
        str | None,
        typer.Option(help="package.module:function that builds its network; code.", rich_help_panel=options.VICTIM),
    ] = None,
    trust_code: options.TrustCode = False,
    outputs: Annotated[
        str | None,
        typer.Option(help="What the model answers: auto, logits or probabilities.", rich_help_panel=options.VICTIM),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(help="Subtracted from images in [0, 1]: one number, or R,G,B.", rich_help_panel=options.VICTIM),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(help="Images are divided by it afterwards: one number, or R,G,B.", rich_help_panel=options.VICTIM),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="How many classes the model has, or a file that names them in its order, one a line.",
            rich_help_panel=options.VICTIM,
        ),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="What an endpoint speaks: auto, v2 or json.", rich_help_panel=_ENDPOINT)
    ] = None,
    auth_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the credential.", rich_help_panel=_ENDPOINT)
    ] = None,
    auth_header: Annotated[
        str | None, typer.Option(help="Header for the credential (Authorization).", rich_help_panel=_ENDPOINT)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--request-size", help="Images a request to an endpoint.", rich_help_panel=_ENDPOINT)
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="At most so many images a second to an endpoint.", rich_help_panel=_ENDPOINT)
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that a request may take.", rich_help_panel=_ENDPOINT)
    ] = None,
    retries: Annotated[
        int | None, typer.Option(help="How often a request is repeated after a fault.", rich_help_panel=_ENDPOINT)
    ] = None,
    attacks: options.Attacks = None,
    defences: options.DefencesToTry = None,
    control: options.Control = None,
    answers: options.Answers = None,
    budgets: options.Budgets = None,
    query_pool: options.QueryPool = None,
    attacker_images: options.AttackerImages = None,
    attacker_labels: options.AttackerLabels = None,
    seeds: options.Seeds = None,
    max_seeds: options.MaxSeeds = None,
    max_minutes: options.MaxMinutes = None,
    thief_model: options.ThiefModel = None,
    thief_weights: options.ThiefWeights = None,
    thief_training: options.ThiefTraining = None,
    weights: options.WeightsOfControl = None,
    training: options.Training = None,
    epsilon: options.Epsilon = None,
    preset: options.Preset = None,
    image_size: options.ImageSize = None,
    image_channels: options.ImageChannels = None,
    image_fit: options.ImageFit = None,
    limit: options.Limit = None,
    data_root: options.DataRoot = None,
    download: options.Download = None,
    device: options.Device = None,
    jobs: options.JobsOfAudit = None,
    executor: options.Executor = None,
    address: options.Address = None,
    gpus_per_cell: options.GpusPerCell = None,
    victim_store: options.Shared = None,
    output: options.Output = None,
    fail_on: options.FailOn = None,
    config: options.Config = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    json_output: options.JsonOutput = False,
) -> None:
    """Steal a model of one's own, measure the copies, and write a report.

    No code of the model's runs without --trust-code. White-box robustness is
    measured where the model gives gradients.
    """
    used: dict[str, Any] = locals()
    from art_divqat.victims.external.settings import ExternalModel, model_at

    used |= {"mean": common.numbers("--mean", mean), "std": common.numbers("--std", std)}
    used["classes"] = common.classes(classes)
    used |= {
        "victims": None if target is None else [model_at(target)],
        "external": common.given(used, ExternalModel) or None,
    }
    requested = common.configuration(config, used)
    if target is None:
        target = _named(requested, config)
    if "dataset" not in requested.model_fields_set:
        raise UserError("Say what images the model takes with --data: a name, npz:PATH, folder:PATH or hf:PATH.")
    code = f"{target}{f' and {factory}' if factory else ''}" if trust_code else ""
    with _told(code):
        common.run(requested, output, retrain=False, quiet=quiet, json_output=json_output, dry_run=dry_run)


@contextmanager
def _told(code: str) -> Iterator[None]:
    """Say which code of the model's ran inside, if any; an error has one line, its own."""
    notice = f"Ran code of the model, as --trust-code allows: {code}"
    try:
        yield
    except typer.Exit:
        if code:
            typer.echo(notice, err=True)
        raise
    if code:
        typer.echo(notice, err=True)


def _named(requested: EvaluateConfig, file: Path | None) -> str:
    """Where the model is that a configuration names.

    :raises UserError: if it names none, or one that no file holds.
    """
    from art_divqat.victims.external.settings import is_external, model_at

    external = [victim for victim in requested.victims if is_external(victim)]
    if not external:
        named = "" if file is None else f" {file} names none:"
        raise UserError(f"Say which model to audit:{named} give MODEL, a file, a folder or an http(s) address.")
    source = requested.external and requested.external.source
    if source is None and external[0] != model_at(external[0]):
        raise UserError(
            f"The model of {file} was an object of Python's, which no file holds: give MODEL, or run it from Python "
            f"with that object, art_divqat.audit_model(model, config={str(file)!r})."
        )
    return source or external[0]
