"""Plan → cells → journal → results: one evaluation, which can be stopped anywhere and goes on where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from art_divqat._files import default_store, write_text_whole
from art_divqat.attacks.extraction.registry import ATTACKS, check_parameters, least_budget
from art_divqat.audit.environment import environment, resolve_device, tool
from art_divqat.audit.executor import Task, default_jobs, run_tasks
from art_divqat.audit.folder import RunFolder
from art_divqat.audit.progress import Silent, Watcher
from art_divqat.errors import UserError
from art_divqat.plan.cells import Cell, plan_cells
from art_divqat.plan.config import EvaluateConfig, ResolvedConfig, write_config
from art_divqat.plan.presets import resolve
from art_divqat.results.build import build_results, config_of, data_of
from art_divqat.results.journal import CellRecord, Header
from art_divqat.results.schema import Results
from art_divqat.specs import parse_spec
from art_divqat.victims.external.settings import is_external
from art_divqat.victims.registry import VICTIMS, parent_of

# depends on it.
_ADVERSARIAL_COST = 8.0
_EVASION_COST = 1.0
_QUANTIZED_COST = 2.0
_WORST_CASE_COST = 8.0
# in white-box measurements: what audit/robustness.py adds to a victim, and the curve of a thief
_SIGNS_COST = 2.5
_THIEF_RADIUS_COST = 0.6


def evaluate(
    config: EvaluateConfig,
    output: Path,
    *,
    store: Path | None = None,
    retrain: bool = False,
    watcher: Watcher | None = None,
) -> Results:
    """Run every cell of a configuration that the run folder does not hold yet, and write the results and reports.

    :param config: what to evaluate; defaults are filled in.
    :param output: the run folder: new, empty, or one of the same configuration, which is then continued.
    :param store: where trained victims are kept; the user's cache if not given.
    :param retrain: train the victims anew even if the store has them.
    :raises UserError: for anything in the configuration, the data or the folder that cannot be used; nothing is
        written then.
    """
    watcher = watcher or Silent()
    resolved = resolve(config.model_copy(update={"device": resolve_device(config.device)}))
    if resolved.external is not None and (resolved.external.is_remote or resolved.external.source is None):
        # one process asks an endpoint, and holds a live object
        resolved = resolved.model_copy(update={"jobs": 1, "answers_file": output / "answers.jsonl"})
    folder = RunFolder(output)
    folder.check()
    jobs = resolved.jobs or default_jobs(resolved)
    store = store or default_store()
    plan = plan_cells(resolved)
    if folder.journal.exists():
        header, _ = folder.journal.read()
        _check_same(header, resolved, output)
        data = data_of(header, output)
    else:
        watcher.working("0", "reading the data", 0, 0)
        ((_, data),) = run_tasks([Task("describe", resolved, store)], jobs, watcher)
    check_attacks(resolved, data)
    with folder.locked():
        lines = _start_or_continue(folder, resolved, data)
        done = {Cell(**line["cell"]).id for line in lines}
        pending = [cell for cell in plan if cell.id not in done]
        _run_cells(folder, resolved, data, store, retrain, pending, plan, jobs, watcher)
        header, lines = folder.journal.read()
        return _write_results(folder, build_results(header, lines, plan, resolved.fail_on))


def _start_or_continue(folder: RunFolder, config: ResolvedConfig, data: dict[str, Any]) -> list[CellRecord]:
    if folder.journal.exists():
        header, lines = folder.journal.read(repair=True)
        _check_same(header, config, folder.path)
        return lines
    write_text_whole(folder.config, write_config(config))
    folder.journal.start(
        {
            "schema_version": 1,
            "tool": tool(),
            "environment": environment(config.device),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "config": config.for_results(),
            "data": data,
        }
    )
    return []


def _check_same(header: Header, config: ResolvedConfig, path: Path) -> None:
    ours = config.for_results()
    # options that came later than the run have had their defaults
    theirs = config_of(header, path).for_results()
    differing = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
    if differing:
        key = differing[0]
        raise UserError(
            f"The folder {path} holds a run of other settings ({key} {theirs.get(key)!r} there, {ours.get(key)!r} "
            "asked): give --output another folder, or repeat that run with --config."
        )


def check_attacks(config: ResolvedConfig, data: dict[str, Any]) -> None:
    """Refuse attacks that cannot run on this pool, these budgets or these victims, before anything is written.

    :raises UserError: for a pool without labels or smaller than a budget, where an attack needs them, a budget smaller
        than one step of an attack, or `fee` on a network that is not of its kind.
    """
    specs = {attack: parse_spec(attack) for attack in config.attacks}
    entries = {attack: ATTACKS[spec.name] for attack, spec in specs.items()}
    for attack, spec in specs.items():
        least = least_budget(spec.name, spec.as_dict)
        if config.budgets[0] < least:
            raise UserError(
                f"One step of attack {attack!r} asks {least} queries, more than the budget of {config.budgets[0]}: "
                "raise --budget, or give the attack a smaller step."
            )
        own, _, _ = check_parameters(spec.name, spec.as_dict)
        # what is behind a model of somebody else's is not known here
        if config.external is None and (refusal := entries[attack].refusal(config.model, own)) is not None:
            raise UserError(refusal)
    for attack, entry in entries.items():
        if entry.needs_labels and not data["pool"]["labelled"]:
            raise UserError(
                f"Attack {attack!r} needs a query pool with labels, and {config.query_pool!r} has none: give "
                "--query-pool a data set, or in-distribution."
            )
    available = data["pool"]["images"]
    if config.budgets[-1] > available and any(entry.needs_pool for entry in entries.values()):
        raise UserError(
            f"Budget {config.budgets[-1]} is beyond the query pool {config.query_pool!r}, which holds {available} "
            "images: lower --budget or choose a larger --query-pool."
        )


def _run_cells(
    folder: RunFolder,
    config: ResolvedConfig,
    data: dict[str, Any],
    store: Path,
    retrain: bool,
    pending: Sequence[Cell],
    plan: Sequence[Cell],
    jobs: int,
    watcher: Watcher,
) -> None:
    victims = list(dict.fromkeys((cell.victim, cell.seed) for cell in pending))
    costs = Costs(config, data)
    whole = sum(map(costs.of_cell, plan)) + sum(map(costs.of_victim, {(cell.victim, cell.seed) for cell in plan}))
    ahead = sum(map(costs.of_cell, pending)) + sum(map(costs.of_victim, victims))
    watcher.planned(whole, whole - ahead)
    if not pending:
        return
    # Every victim first, and what it is quantized from before it: side by side, two cells of one victim or two
    # children of one parent would both train it.
    parents = [(parent_of(parse_spec(name)), seed) for name, seed in victims]
    roots = [victim for victim, (parent, _) in zip(victims, parents, strict=True) if parent is None]
    roots += [(parent, seed) for parent, seed in parents if parent is not None]
    for wave in (list(dict.fromkeys(roots)), [victim for victim in victims if victim not in roots]):
        tasks = [Task("victim", config, store, retrain, victim=victim) for victim in wave]
        for number, _ in run_tasks(tasks, jobs, watcher):
            if wave[number] in victims:
                watcher.finished(tasks[number].description, costs.of_victim(wave[number]))
    cells = [Task("cell", config, store, cell=cell) for cell in pending]
    for number, line in run_tasks(cells, jobs, watcher):
        folder.journal.append(line)
        watcher.finished(cells[number].description, costs.of_cell(pending[number]))


class Costs:
    """What each piece of work costs relative to the others, for an honest estimate of the time left.

    :param victim_image: the cost of an image in the victim's network, in units of one in the thief's.
    """

    def __init__(self, config: ResolvedConfig, data: dict[str, Any], victim_image: float = 1.0) -> None:
        self._config = config
        self._victim_image = victim_image
        self._train = data["dataset"]["train"]
        self._evasion = data["evasion_images"] * config.evasion.steps * _EVASION_COST
        # the accuracy and the single figure are there already
        self._radii = len(set(config.evasion.epsilons or ()) - {0.0, config.epsilon})

    def of_victim(self, victim: tuple[str, int]) -> float:
        """Training, dearer if adversarial, the evasion images, and the robustness curve with its checks."""
        evasion = self._evasion * (1 + self._radii + _SIGNS_COST)
        if is_external(victim[0]):
            return evasion * self._victim_image
        factor = _ADVERSARIAL_COST if victim[0].startswith("robust") else 1.0
        quantized = VICTIMS[parse_spec(victim[0]).name].parent is not None
        training = self._train * self._config.victim_recipe.epochs * factor
        worst_case = self._evasion * _WORST_CASE_COST if quantized else 0.0
        return (training * (_QUANTIZED_COST if quantized else 1.0) + evasion + worst_case) * self._victim_image

    def of_cell(self, cell: Cell) -> float:
        """Training the thief and attacking it, with its curve at the largest budget."""
        curve = self._radii * _THIEF_RADIUS_COST if cell.budget == self._config.budgets[-1] else 0.0
        evasion = self._evasion * (1 + curve)
        return cell.budget * self._config.thief_recipe.epochs + evasion


def _write_results(folder: RunFolder, results: Results) -> Results:
    from art_divqat.report import write_report

    write_report(results, folder.path)
    return results
