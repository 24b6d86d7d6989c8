"""`art-divqat audit MODEL --data D`: how easily one's own model is stolen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from art_divqat.cli import options
from art_divqat.cli.evaluate import configuration, items, run, whole_numbers
from art_divqat.errors import UserError


def audit(
    target: Annotated[
        str, typer.Argument(metavar="MODEL", help="A file, a folder of a saved classifier, or an http(s) address.")
    ],
    data: options.Data = None,
    model: Annotated[str | None, typer.Option(help="Architecture that a state dict belongs to.")] = None,
    factory: Annotated[str | None, typer.Option(help="package.module:function that builds its network; code.")] = None,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Allow a factory, TorchScript or torch.export file to run.")
    ] = False,
    outputs: Annotated[str | None, typer.Option(help="What the model answers: auto, logits or probabilities.")] = None,
    mean: Annotated[str | None, typer.Option(help="Subtracted from images in [0, 1]: one number, or R,G,B.")] = None,
    std: Annotated[str | None, typer.Option(help="Images are divided by it afterwards: one number, or R,G,B.")] = None,
    protocol: Annotated[str | None, typer.Option(help="What an endpoint speaks: auto, v2 or json.")] = None,
    auth_env: Annotated[str | None, typer.Option(help="Environment variable that holds the credential.")] = None,
    auth_header: Annotated[str | None, typer.Option(help="Header for the credential (Authorization).")] = None,
    request_size: Annotated[int | None, typer.Option(help="Images a request to an endpoint.")] = None,
    rate: Annotated[float | None, typer.Option(help="At most so many images a second to an endpoint.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that a request may take.")] = None,
    retries: Annotated[int | None, typer.Option(help="How often a request is repeated after a fault.")] = None,
    attack: options.Attacks = None,
    defence: Annotated[options.Many, typer.Option(help="Defence to try before the model; repeatable.")] = None,
    answers: options.Answers = None,
    budget: options.Budget = None,
    query_pool: Annotated[str | None, typer.Option(help="What the attacker queries with.")] = None,
    seeds: options.Seeds = None,
    thief_model: options.ThiefModel = None,
    epsilon: options.Epsilon = None,
    preset: options.Preset = None,
    limit: options.Limit = None,
    data_root: options.DataRoot = None,
    device: options.Device = None,
    jobs: Annotated[int | None, typer.Option(help="Cells side by side; an endpoint is asked by one.")] = None,
    output: Annotated[Path | None, typer.Option(help="Run folder: new, empty, or of the same audit.")] = None,
    fail_on: options.FailOn = None,
    config: options.Config = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json_output: options.JsonOutput = False,
) -> None:
    """Steal a model of one's own, measure the copies, and write a report.

    No code of the model's runs without --trust-code. White-box robustness is measured where the model gives gradients.
    """
    from art_divqat.victims.external.settings import is_url

    described = {
        "architecture": model,
        "factory": factory,
        "outputs": outputs,
        "mean": _numbers("--mean", mean),
        "std": _numbers("--std", std),
        "protocol": protocol,
        "auth_env": auth_env,
        "auth_header": auth_header,
        "batch_size": request_size,
        "rate": rate,
        "timeout": timeout,
        "retries": retries,
    }
    given: dict[str, Any] = {
        "victims": [target if is_url(target) else f"file:{target.removeprefix('file:')}"],
        "external": {key: value for key, value in described.items() if value is not None} or None,
        "dataset": data,
        "attacks": items(attack),
        "defences": items(defence),
        "answers": items(answers),
        "budgets": whole_numbers(budget),
        "query_pool": query_pool,
        "seeds": seeds,
        "thief_model": thief_model,
        "epsilon": epsilon,
        "preset": preset,
        "limit": limit,
        "data_root": str(data_root) if data_root else None,
        "device": device,
        "jobs": jobs,
        "fail_on": fail_on or None,
        "trust_code": trust_code or None,
    }
    wanted = configuration(config, {key: value for key, value in given.items() if value is not None})
    if data is None and "dataset" not in wanted.model_fields_set:
        raise UserError("Say what images the model takes with --data: a name, npz:PATH or folder:PATH.")
    if trust_code:
        what = f" and {factory}" if factory else ""
        typer.echo(f"Running code of the model, as --trust-code allows: {target}{what}", err=True)
    run(wanted, output, retrain=False, quiet=quiet, json_output=json_output, dry_run=dry_run)


def _numbers(option: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(item) for item in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r} is not a number or three: expected N or R,G,B.") from None
