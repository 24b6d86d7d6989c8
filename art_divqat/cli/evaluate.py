"""`art-divqat evaluate`: steal victims, with and without defences, and report how well it went."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from art_divqat.cli import options
from art_divqat.errors import InterruptedRunError, UserError

if TYPE_CHECKING:
    from art_divqat.plan.config import EvaluateConfig

EXIT_GATE = 1
# a comma ends an item unless what follows is another parameter of it, as in robust:epsilon=0.1,epochs=5
_BETWEEN_ITEMS = re.compile(r",(?!\s*[A-Za-z_]\w*\s*=)")


def evaluate(
    dataset: options.Data = None,
    victim: Annotated[
        options.Many, typer.Option(help="Victim, such as standard or robust:epsilon=0.2; repeatable.")
    ] = None,
    attack: options.Attacks = None,
    defence: Annotated[
        options.Many, typer.Option(help="Defence NAME[:parameter=value,…], chained with +; repeatable.")
    ] = None,
    answers: options.Answers = None,
    budget: options.Budget = None,
    query_pool: Annotated[
        str | None, typer.Option(help="What the attacker queries with: in-distribution, photos, noise or a data set.")
    ] = None,
    seeds: options.Seeds = None,
    model: Annotated[str | None, typer.Option(help="Architecture of the victims.")] = None,
    thief_model: options.ThiefModel = None,
    epsilon: options.Epsilon = None,
    preset: options.Preset = None,
    limit: options.Limit = None,
    data_root: options.DataRoot = None,
    download: Annotated[
        bool | None, typer.Option("--download", help="Download a data set that is not there.", show_default=False)
    ] = None,
    repeat_queries: Annotated[
        str | None, typer.Option(help="paid: every image asked is charged; free: an image is charged once.")
    ] = None,
    device: options.Device = None,
    jobs: Annotated[int | None, typer.Option(help="Cells side by side; the results do not depend on it.")] = None,
    threads: Annotated[int | None, typer.Option(help="torch threads a cell; the last digits depend on it.")] = None,
    output: Annotated[Path | None, typer.Option(help="Run folder: new, empty, or of the same configuration.")] = None,
    fail_on: options.FailOn = None,
    config: options.Config = None,
    no_baseline: Annotated[
        bool, typer.Option("--no-baseline", help="Do not add the victim that each is compared with.")
    ] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Allow a TorchScript or torch.export victim (file:PATH) to run.")
    ] = False,
    dry_run: options.DryRun = False,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train victims anew even if they are kept.")] = False,
    quiet: options.Quiet = False,
    json_output: options.JsonOutput = False,
) -> None:
    """Steal victims, measure the copies, and write a report.

    The default compares how stealable an ordinary classifier of handwritten digits is; with --victim robust also an
    adversarially trained one. Everything is kept in the run folder, and the same command goes on where it stopped.
    """
    given: dict[str, Any] = {
        "dataset": dataset,
        "victims": items(victim),
        "attacks": items(attack),
        "defences": items(defence),
        "answers": items(answers),
        "budgets": whole_numbers(budget),
        "query_pool": query_pool,
        "seeds": seeds,
        "model": model,
        "thief_model": thief_model,
        "epsilon": epsilon,
        "preset": preset,
        "limit": limit,
        "repeat_queries": repeat_queries,
        "fail_on": fail_on or None,
        "data_root": str(data_root) if data_root else None,
        "download": download,
        "device": device,
        "jobs": jobs,
        "threads": threads,
        "baseline": False if no_baseline else None,
        "trust_code": trust_code or None,
    }
    wanted = configuration(config, {key: value for key, value in given.items() if value is not None})
    run(wanted, output, retrain=retrain, quiet=quiet, json_output=json_output, dry_run=dry_run)


def run(
    wanted: EvaluateConfig, output: Path | None, *, retrain: bool, quiet: bool, json_output: bool, dry_run: bool = False
) -> None:
    """Run a configuration, show how it goes, and print what came out; or only what it would do."""
    from art_divqat import api

    config = api.prepare(wanted)
    if dry_run:
        from art_divqat.cli.dry_run import show_plan

        show_plan(config, json_output=json_output)
        return
    from art_divqat.audit.folder import default_folder
    from art_divqat.cli.progress import watch
    from art_divqat.report import render_json

    folder = output or default_folder(config)
    try:
        with watch(quiet=quiet or not sys.stderr.isatty()) as watcher:
            results = api.evaluate(config, folder, retrain=retrain, watcher=watcher)
    except KeyboardInterrupt:
        # Typer would end the program here, and in silence
        raise InterruptedRunError from None
    if json_output:
        sys.stdout.write(render_json(results))
    else:
        from art_divqat.cli.tables import print_results

        print_results(results, folder)
    if not results.gate.passed:
        raise typer.Exit(EXIT_GATE)


def configuration(file: Path | None, given: dict[str, Any]) -> EvaluateConfig:
    """What a file and the options beside it ask for; the options win."""
    from art_divqat.plan.config import make_config, read_config

    values = read_config(file) if file is not None else {}
    for option in ("trust_code", "answers_file"):
        if option in values:
            raise UserError(f"{file} says {option}: a file grants no trust and says no places; use the command line.")
    if isinstance(values.get("external"), dict) and "external" in given:
        given = {**given, "external": {**values["external"], **given["external"]}}
    return make_config({**values, **given})


def items(texts: list[str] | None) -> list[str] | None:
    """What a repeatable option lists, at commas too."""
    if not texts:
        return None
    return [item.strip() for text in texts for item in _BETWEEN_ITEMS.split(text)]


def whole_numbers(texts: list[str] | None) -> list[int] | None:
    """Budgets."""
    numbers = []
    for item in items(texts) or []:
        try:
            numbers.append(int(item.replace("_", "")))
        except ValueError:
            raise UserError(f"--budget {item!r} is not a whole number of queries: expected N or N,N,…") from None
    return numbers or None
