"""Train one victim and save it in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from art_divqat._files import default_store
from art_divqat.audit.executor import Executor
from art_divqat.audit.progress import Silent, Watcher
from art_divqat.audit.tasks import MeasureVictim
from art_divqat.errors import UserError
from art_divqat.plan.config import ResolvedConfig
from art_divqat.victims.store import SET_ASIDE


def train(
    config: ResolvedConfig,
    output: Path,
    *,
    seed: int = 0,
    store: Path | None = None,
    retrain: bool = False,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Train the one victim of a configuration, measure it on the test images, and copy it into a new folder.

    :param config: as :func:`art_divqat.api.prepare` gives it, with `baseline` off where the victim has one.
    :param output: a folder that does not exist yet or is empty. It gets `victim.json`, which says what the victim is,
        and `weights.safetensors`, or for an int8 victim the folder `quantized`.
    :param seed: which of the seeds that `evaluate` would use.
    :return: `victim`, `victim_accuracy` and, unless no evasion images are wanted, `victim_robust_accuracy`.
    :raises UserError: for anything that cannot be used; nothing is written to `output` then.
    """
    if len(config.victims) != 1:
        raise UserError(f"One victim is trained at a time. Got {', '.join(map(str, config.victims))}.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} is there already: give --output a new or empty folder.")
    (victim,) = config.victims
    here = config.model_copy(update={"jobs": 1, "executor": "local"})
    with Executor(here, store or default_store(), watcher or Silent()) as executor:
        ((_, (folder, measured)),) = executor.run([MeasureVictim(victim, seed, retrain)])
    try:
        shutil.copytree(folder, output, dirs_exist_ok=True, ignore=shutil.ignore_patterns("evasion-*", SET_ASIDE, ".*"))
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}.") from None
    return {"victim": str(victim), **measured}
