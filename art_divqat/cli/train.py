"""`art-divqat train`: train one victim and keep it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from art_divqat.cli import common, options


def train(
    victim: Annotated[
        str, typer.Option(help="What to train, such as robust:epsilon=0.2 or divqat.", rich_help_panel=options.VICTIM)
    ],
    output: Annotated[
        Path, typer.Option(help="New or empty folder for the trained victim.", rich_help_panel=options.RESULT)
    ],
    dataset: options.Dataset = None,
    model: options.Model = None,
    weights: options.Weights = None,
    training: options.Training = None,
    epsilon: options.Epsilon = None,
    query_pool: options.AvoidedPool = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides every draw.", rich_help_panel=options.AMOUNT)] = 0,
    preset: options.Preset = None,
    image_size: options.ImageSize = None,
    image_channels: options.ImageChannels = None,
    image_fit: options.ImageFit = None,
    limit: options.Limit = None,
    data_root: options.DataRoot = None,
    download: options.Download = None,
    device: options.Device = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML, TOML or JSON file with any options of evaluate.", rich_help_panel=options.RESULT),
    ] = None,
    retrain: options.Retrain = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Train one victim, say how accurate and how robust it is, and keep it in a folder."""
    here = {"executor": "local", "address": None, "gpus_per_cell": 0.0}
    requested = common.configuration(config, {**locals(), "victims": [victim], "baseline": False})
    requested = requested.model_copy(update=here)
    from art_divqat.api import resolved_for_run
    from art_divqat.audit.train import train as train_victim

    with common.watched(quiet=quiet) as watcher:
        figures = train_victim(resolved_for_run(requested), output, seed=seed, retrain=retrain, watcher=watcher)
    for name, value in figures.items():
        typer.echo(f"{name}: {value if isinstance(value, str) else format(value, '.4f')}")
    typer.echo(f"kept in: {output}")
