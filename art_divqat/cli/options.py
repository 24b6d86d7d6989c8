"""The options that `evaluate` and `audit` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Many = list[str] | None

Data = Annotated[str | None, typer.Option(help="Data set: a name, npz:PATH or folder:PATH.")]
Attacks = Annotated[Many, typer.Option(help="Extraction attack, such as knockoff; repeatable.")]
Answers = Annotated[Many, typer.Option(help="What the thief learns from: soft, hard; repeatable.")]
Budget = Annotated[Many, typer.Option(help="Queries, ascending: N,N,…")]
Seeds = Annotated[int | None, typer.Option(help="How many repetitions with different seeds.")]
ThiefModel = Annotated[str | None, typer.Option(help="Architecture of the thieves.")]
Epsilon = Annotated[float | None, typer.Option(help="L∞ radius of robustness, in units of [0, 1] pixels.")]
Preset = Annotated[str | None, typer.Option(help="quick, standard or paper.")]
Limit = Annotated[int | None, typer.Option(help="Use at most so many training and so many test images.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder with data sets in torchvision's layout.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:i.")]
FailOn = Annotated[
    Many, typer.Option(help="End with exit code 1 where this holds, such as 'agreement>0.9'; repeatable.")
]
Config = Annotated[Path | None, typer.Option(help="YAML, TOML or JSON file with any of these options.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and leave.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print results.json to stdout and nothing else.")]
