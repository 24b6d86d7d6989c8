"""Command-line options: each is declared once, named as the field of the configuration that it sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from art_divqat.cli.completion import completed
from art_divqat.cli.progress import show_log

Many = list[str] | None


def _seeds(text: str) -> str:
    if text != "auto" and not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is neither a whole number nor auto.")
    return text


Dataset = Annotated[str | None, typer.Option(help="Data set: a name, npz:PATH, folder:PATH or hf:PATH.")]
AuditedData = Annotated[str | None, typer.Option("--data", help="Data set: a name, npz:PATH, folder:PATH or hf:PATH.")]
Victims = Annotated[Many, typer.Option("--victim", help="Victim, such as standard or robust:epsilon=0.2; repeatable.")]
Attacks = Annotated[Many, typer.Option("--attack", help="Extraction attack, such as knockoff; repeatable.")]
Defences = Annotated[
    Many, typer.Option("--defence", help="Defence NAME[:parameter=value,…], chained with +; repeatable.")
]
DefencesToTry = Annotated[Many, typer.Option("--defence", help="Defence to try before the model; repeatable.")]
Answers = Annotated[Many, typer.Option(help="What the thief learns from: soft, hard; repeatable.")]
Budgets = Annotated[Many, typer.Option("--budget", help="Queries, ascending: N,N,…")]
QueryPool = Annotated[
    str | None, typer.Option(help="What the attacker queries with: in-distribution, photos, noise or a data set.")
]
AttackerImages = Annotated[
    int | None, typer.Option(help="Images of the victim's own kind that the attacker has, from its held-out ones.")
]
AttackerLabels = Annotated[
    bool | None,
    typer.Option("--attacker-labels/--no-attacker-labels", help="Whether the attacker knows their true labels."),
]
AvoidedPool = Annotated[
    str | None,
    typer.Option("--query-pool", help="The attacker's pool, which DivQAT's auxiliary images keep away from."),
]
Seeds = Annotated[
    str | None,
    typer.Option(parser=_seeds, metavar="N|auto", help="How many repetitions; auto: until the lead is decided."),
]
MaxSeeds = Annotated[int | None, typer.Option(help="With --seeds auto: the most seeds.")]
MaxMinutes = Annotated[
    float | None, typer.Option(help="With --seeds auto: add none that would end later; the same command goes on then.")
]
Model = Annotated[str | None, typer.Option(help="Architecture of the victims: a name, torchvision:NAME or timm:NAME.")]
ThiefModel = Annotated[
    str | None, typer.Option(help="Architecture of the thieves: a name, torchvision:NAME or timm:NAME.")
]
Weights = Annotated[
    str | None,
    typer.Option(help="Public weights that victims begin from: imagenet, package:NAME or a state dict's path."),
]
WeightsOfControl = Annotated[
    str | None, typer.Option("--weights", help="Public weights that the control begins from; else the thieves'.")
]
Training = Annotated[
    str | None,
    typer.Option(help="With --weights: fine-tune, or probe, which trains a head on what they see and nothing else."),
]
ThiefTraining = Annotated[str | None, typer.Option(help="With --thief-weights: probe, or fine-tune for both.")]
ThiefWeights = Annotated[
    str | None,
    typer.Option(help="Public weights that thieves begin from: imagenet, package:NAME or a state dict's path."),
]
Epsilon = Annotated[float | None, typer.Option(help="L∞ radius of robustness, in units of [0, 1] pixels.")]
Preset = Annotated[str | None, typer.Option(help="quick, standard or paper.")]
ImageSize = Annotated[
    str | None,
    typer.Option(help="Pixels that images are resized to: N or HxW; else a model's own size, or the pictures'."),
]
ImageChannels = Annotated[int | None, typer.Option(help="1 for grey, 3 for RGB; else the model's or their own.")]
ImageFit = Annotated[str | None, typer.Option(help="How they come to it: crop (the centre) or squash.")]
Limit = Annotated[int | None, typer.Option(help="Use at most so many training and so many test images.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder with data sets in torchvision's layout.")]
Download = Annotated[
    bool | None,
    typer.Option("--download", help="Download a data set or public weights that are not there.", show_default=False),
]
RepeatQueries = Annotated[
    str | None, typer.Option(help="paid: every image asked is charged; free: an image is charged once.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:i.")]
Jobs = Annotated[int | None, typer.Option(help="Cells side by side; the results do not depend on it.")]
JobsOfAudit = Annotated[int | None, typer.Option("--jobs", help="Cells side by side; an endpoint is asked by one.")]
Threads = Annotated[int | None, typer.Option(help="torch threads a cell; the last digits depend on it.")]
Executor = Annotated[str | None, typer.Option(metavar="local|ray", help="Where cells run: here, or on a Ray engine.")]
Address = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="The engine's head, or auto; else what RAY_ADDRESS says.")
]
GpusPerCell = Annotated[float | None, typer.Option(help="GPUs of the engine that a cell takes, such as 0.5.")]
Shared = Annotated[
    str | None, typer.Option("--victim-store", metavar="URL", help="Folder of victims that all machines use.")
]
FailOn = Annotated[
    Many, typer.Option(help="End with exit code 1 where this holds, such as 'agreement>0.9'; repeatable.")
]
NoBaseline = Annotated[bool, typer.Option("--no-baseline", help="Do not add the victim that each is compared with.")]
Control = Annotated[
    bool | None,
    typer.Option(
        "--control/--no-control",
        help="Attack an undefended model trained here too; without it a model not stolen is rated inconclusive.",
    ),
]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Allow a factory, TorchScript or torch.export file to run.")
]
Config = Annotated[Path | None, typer.Option(help="YAML, TOML or JSON file with any of these options.")]
Output = Annotated[Path | None, typer.Option(help="Run folder: new, empty, or of the same configuration.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and leave.")]
Retrain = Annotated[bool, typer.Option("--retrain", help="Train victims anew even if they are kept.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print results.json to stdout and nothing else.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say on stderr what is done, line by line.", callback=show_log)
]


def _set(name: str, value: object, *options: Any) -> None:
    """Set an attribute of what is declared above."""
    for option in options:
        (info,) = option.__metadata__
        setattr(info, name, value)


VICTIM, ATTACKER, AMOUNT = "What is attacked", "The attacker", "How much is run"
MACHINE, ENGINE, RESULT = "How it is run", "On several machines", "What comes out"
# every option stands under a topic of --help
_TOPICS: dict[str, tuple[Any, ...]] = {
    VICTIM: (
        *(Dataset, AuditedData, Victims, Defences, DefencesToTry, Model, Weights, WeightsOfControl, Training, Epsilon),
        *(ImageSize, ImageChannels, ImageFit, Control, NoBaseline, TrustCode),
    ),
    ATTACKER: (
        *(Attacks, Answers, Budgets, QueryPool, AvoidedPool, AttackerImages, AttackerLabels, RepeatQueries),
        *(ThiefModel, ThiefWeights, ThiefTraining),
    ),
    AMOUNT: (Preset, Seeds, MaxSeeds, MaxMinutes, Limit),
    MACHINE: (DataRoot, Download, Device, Jobs, JobsOfAudit, Threads, Retrain),
    ENGINE: (Executor, Address, GpusPerCell, Shared),
    RESULT: (Output, FailOn, Config, DryRun, Quiet, Verbose, JsonOutput),
}
for _topic, _options in _TOPICS.items():
    _set("rich_help_panel", _topic, *_options)
_set("metavar", "NAME,…", Victims, Attacks, Defences, DefencesToTry)
_set("metavar", "KIND,…", Answers)
_set("metavar", "N,N,…", Budgets)
_set("metavar", "CONDITION", FailOn)
_set("autocompletion", completed("datasets"), Dataset, AuditedData)
_set("autocompletion", completed("victims"), Victims)
_set("autocompletion", completed("attacks"), Attacks)
_set("autocompletion", completed("defences"), Defences, DefencesToTry)
_set("autocompletion", completed("pools", "datasets"), QueryPool, AvoidedPool)
_set("autocompletion", completed("models"), Model, ThiefModel)
_set("autocompletion", completed("presets"), Preset)
