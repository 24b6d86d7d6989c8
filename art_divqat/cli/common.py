"""Helpers of the commands: read options into a configuration, and run one while showing its progress."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from art_divqat.errors import InterruptedRunError, UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from art_divqat.audit.progress import Watcher
    from art_divqat.plan.config import EvaluateConfig

EXIT_GATE = 1
# a comma ends an item unless what follows is another parameter of it, as in robust:epsilon=0.1,epochs=5
_BETWEEN_ITEMS = re.compile(r",(?!\s*[A-Za-z_]\w*\s*=)")
_LISTS = ("victims", "attacks", "defences", "answers")


def given(options: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The options of a command that were used and are fields of `model`, by their names, lists taken apart at commas.

    :param options: `locals()` of the command, taken first of all.
    """
    values = {name: value for name, value in options.items() if name in model.model_fields}
    used = {name: value for name, value in values.items() if value is not None and value != []}
    for name in _LISTS:
        if name in used:
            used[name] = items(used[name])
    if "budgets" in used:
        used["budgets"] = whole_numbers(used["budgets"])
    return {name: str(value) if isinstance(value, Path) else value for name, value in used.items()}


def configuration(file: Path | None, options: Mapping[str, Any]) -> EvaluateConfig:
    """What a file and the options beside it ask for; the options win.

    :param options: `locals()` of the command, or such values by their fields' names.
    :raises UserError: for a file that cannot be read, and for an option that cannot be used.
    """
    from art_divqat.plan.config import EvaluateConfig, make_config, read_config

    values = read_config(file) if file is not None else {}
    used = given(options, EvaluateConfig)
    if isinstance(values.get("external"), dict) and "external" in used:
        used["external"] = {**values["external"], **used["external"]}
    return make_config({**values, **used})


@contextmanager
def watched(*, quiet: bool) -> Iterator[Watcher]:
    """Show the progress of what is run inside: lines with `--verbose`, else bars unless `quiet` or on no terminal.

    :raises InterruptedRunError: for Ctrl-C, where Typer would end the program in silence.
    """
    from art_divqat.cli.progress import watch

    try:
        with watch(quiet=quiet or not sys.stderr.isatty()) as watcher:
            yield watcher
    except KeyboardInterrupt:
        raise InterruptedRunError from None


def run(
    config: EvaluateConfig, output: Path | None, *, retrain: bool, quiet: bool, json_output: bool, dry_run: bool = False
) -> None:
    """Run a configuration, show how it goes, and print what came out; or only what it would do."""
    from art_divqat import api
    from art_divqat.audit.folder import default_folder

    resolved = api.resolved_for_run(config)
    folder = output or default_folder(resolved)
    if dry_run:
        from art_divqat.cli.dry_run import show_plan

        show_plan(resolved, json_output=json_output, folder=folder)
        return
    from art_divqat.report import render_json

    with watched(quiet=quiet) as watcher:
        results = api.run_and_report(resolved, folder, retrain=retrain, watcher=watcher)
    if json_output:
        sys.stdout.write(render_json(results))
    else:
        from art_divqat.cli.tables import print_results

        print_results(results, folder)
    if not results.gate.passed:
        raise typer.Exit(EXIT_GATE)


def items(texts: list[str]) -> list[str]:
    """What a repeatable option lists, at commas too.

    >>> items(["standard,robust:epsilon=0.1,steps=5", "ptq"])
    ['standard', 'robust:epsilon=0.1,steps=5', 'ptq']
    """
    return [item.strip() for text in texts for item in _BETWEEN_ITEMS.split(text)]


def whole_numbers(texts: list[str]) -> list[int]:
    """Budgets.

    :raises UserError: for anything but whole numbers.

    >>> whole_numbers(["250,1_000"])
    [250, 1000]
    """
    numbers = []
    for item in items(texts):
        try:
            numbers.append(int(item.replace("_", "")))
        except ValueError:
            raise UserError(f"--budget {item!r} is not a whole number of queries: expected N or N,N,…") from None
    return numbers


def classes(text: str | None) -> int | tuple[str, ...] | None:
    """The number of classes, or the names in a file, one a line.

    :raises UserError: for neither.

    >>> classes("1000")
    1000
    """
    if text is None:
        return None
    if text.isdecimal():
        return int(text)
    try:
        lines = Path(text).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError):
        raise UserError(
            f"--classes {text!r} is neither a number nor a file of names, one a line: expected how many classes the "
            "model has, or their names in its order."
        ) from None
    return tuple(line.strip() for line in lines if line.strip())


def numbers(option: str, text: str | None) -> list[float] | None:
    """One number, or one for each of three channels.

    :raises UserError: for anything else.

    >>> numbers("--mean", "0.5,0.4,0.3")
    [0.5, 0.4, 0.3]
    """
    if text is None:
        return None
    try:
        return [float(item) for item in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r} is not a number or three: expected N or R,G,B.") from None
