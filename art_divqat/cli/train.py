"""`art-divqat train`: train one victim and keep it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from art_divqat.errors import InterruptedRunError


def train(
    victim: Annotated[str, typer.Option(help="What to train, such as robust:epsilon=0.2 or divqat.")],
    output: Annotated[Path, typer.Option(help="New or empty folder for the trained victim.")],
    dataset: Annotated[str | None, typer.Option(help="Data set: a name, npz:PATH or folder:PATH.")] = None,
    model: Annotated[str | None, typer.Option(help="Architecture.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="L∞ radius of robustness, in units of [0, 1] pixels.")] = None,
    query_pool: Annotated[
        str | None, typer.Option(help="The attacker's pool, which DivQAT's auxiliary images keep away from.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides every draw.")] = 0,
    preset: Annotated[str | None, typer.Option(help="quick, standard or paper.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use at most so many training and so many test images.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder with data sets in torchvision's layout.")] = None,
    download: Annotated[
        bool | None, typer.Option("--download", help="Download a data set that is not there.", show_default=False)
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:i.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML, TOML or JSON file with any options of evaluate.")] = None,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train anew even if the victim is kept.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train one victim, say how accurate and how robust it is, and keep it in a folder."""
    from art_divqat.api import prepare
    from art_divqat.audit.train import train as train_victim
    from art_divqat.cli.evaluate import configuration
    from art_divqat.cli.progress import watch

    given: dict[str, Any] = {
        "victims": [victim],
        "dataset": dataset,
        "model": model,
        "epsilon": epsilon,
        "query_pool": query_pool,
        "preset": preset,
        "limit": limit,
        "data_root": str(data_root) if data_root else None,
        "download": download,
        "device": device,
        "baseline": False,
    }
    wanted = configuration(config, {key: value for key, value in given.items() if value is not None})
    resolved = prepare(wanted)
    try:
        with watch(quiet=quiet or not sys.stderr.isatty()) as watcher:
            measured = train_victim(resolved, output, seed=seed, retrain=retrain, watcher=watcher)
    except KeyboardInterrupt:
        raise InterruptedRunError from None
    for name, value in measured.items():
        typer.echo(f"{name}: {value if isinstance(value, str) else format(value, '.4f')}")
    typer.echo(f"kept in: {output}")
