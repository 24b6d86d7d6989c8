"""`--dry-run`: print the plan of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from art_divqat.plan.config import ResolvedConfig


def show_plan(config: ResolvedConfig, *, json_output: bool, folder: Path | None = None) -> None:
    """Print the plan of a configuration. An audited model is loaded and asked one batch of test images.

    Nothing is written but an endpoint's answers, so that the run itself need not ask for them again.

    :param folder: of the run; an endpoint is asked if it is given.
    """
    from art_divqat.audit.estimate import estimate
    from art_divqat.audit.folder import RunFolder
    from art_divqat.plan.cells import is_control_of
    from art_divqat.report.text import clean, counted
    from art_divqat.results.data_notes import shrinking

    if folder is not None and config.external is not None and config.external.is_remote:
        kept = RunFolder(folder)
        kept.check()
        with kept.locked():
            config = config.model_copy(update={"answers_file": kept.answers})
            plan = estimate(config)
    else:
        plan = estimate(config)
    if json_output:
        sys.stdout.write(json.dumps({"config": config.for_results(), "plan": plan.as_dict()}, indent=2) + "\n")
        return
    labels_only = bool(plan.model and plan.model.get("labels_only"))
    answers = "hard, since there are labels only" if labels_only else ", ".join(config.answers)
    most = "until decided, at most " if config.seeds == "auto" else ""
    rows = [
        ("data", f"{config.dataset}, queries from {config.query_pool}"),
        *(("images" if number == 0 else "", clean(note)) for number, note in enumerate(plan.data_notes)),
        ("victims", ", ".join(str(each) for each in config.victims if not is_control_of(config, each))),
        *_model_rows(plan.model),
        *_control_rows(config, plan.control),
        ("thief", config.thief_model),
        *(("", f"{clean(text)}") for text in shrinking(plan.thief_images)),
        *_weights_rows(config, plan.weights),
        ("defences", ", ".join(map(str, config.defences))),
        ("attacks", f"{', '.join(map(str, config.attacks))}; answers {answers}"),
        ("budgets", f"{', '.join(f'{budget:,}' for budget in config.budgets)}; {most}{counted(plan.seeds, 'seed')}"),
        ("cells", f"{plan.cells:,}"),
        ("queries", f"{plan.attack_queries:,} by all attackers together"),
    ]
    if plan.endpoint_queries is not None:
        rows.append(
            ("endpoint", f"asked for at most {plan.endpoint_queries:,} images, those of the evaluation included")
        )
    if config.answers_file is not None:
        rows.append(("", f"a batch of test images was asked now; the answers are kept in {config.answers_file}"))
    done = "nothing was run" if plan.model is None else "no attack was run"
    rows.append(("time", f"about {_duration(plan.seconds)} with {plan.jobs} side by side; {done}"))
    for name, text in rows:
        typer.echo(f"{name:<9} {text}")


def _control_rows(config: ResolvedConfig, control: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What the thief must be able to steal, so that a model that withstands it can be rated."""
    if config.external is None:
        return []
    if control is None:
        return [("control", "none: a model that is not stolen will be rated inconclusive")]
    what = f"{control['victim']} ({control['model']}), trained here on the same data, undefended"
    cost = f"{control['cells']:,} of the cells, about {_duration(control['seconds'])}; --no-control leaves it out"
    return [("control", what), ("", cost)]


def _weights_rows(config: ResolvedConfig, weights: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What the networks that are trained begin from, where any begins from public weights."""
    from art_divqat.report.text import clean
    from art_divqat.results.data_notes import beginnings

    names = {"victim": "victims" if config.external is None else "control", "thief": "thieves"}
    return [
        ("weights" if number == 0 else "", f"{names[of]}: {clean(text)}")
        for number, (of, text) in enumerate(beginnings(weights))
    ]


def _model_rows(model: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What an audited model is, takes and answers, as far as it was tried."""
    if not model or "architecture" not in model:
        return []
    from art_divqat.report.text import clean
    from art_divqat.results.data_notes import classes_note

    answers = [f"{model['classes']:,} {model['outputs']}", *model.get("answers", ())]
    rows = [
        ("model", clean(str(model["architecture"]))),
        ("input", f"images of {'×'.join(map(str, model['input']))}, in [0, 1]"),
        ("outputs", "; ".join(answers)),
    ]
    if "probe_images" in model:
        right, images = model["probe_right"], model["probe_images"]
        measured = "" if right is None else f"{right / images:.3f} ({right} of {images} test images)"
        rows += [("accuracy", measured)] if measured else []
    if note := classes_note({"model": model}):
        missing = "accuracy is "
        rows.append(("accuracy" if note.startswith(missing) else "", note.removeprefix(missing)))
    return rows


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
