"""Run one evaluation: plan cells, measure them, write the journal and the results.

It can be stopped anywhere and goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from art_divqat._files import default_store, write_text_whole
from art_divqat.audit.costs import Costs
from art_divqat.audit.environment import environment, tool
from art_divqat.audit.executor import Executor
from art_divqat.audit.external_model import as_answered
from art_divqat.audit.folder import RunFolder
from art_divqat.audit.preflight import check_attacks
from art_divqat.audit.progress import Silent, Watcher
from art_divqat.audit.tasks import CheckAndDescribe, DescribeModel, MeasureCell, PrepareVictim
from art_divqat.errors import UserError
from art_divqat.plan.cells import Cell, cell_id, plan_cells
from art_divqat.plan.config import ResolvedConfig
from art_divqat.plan.looks import at_look, looks_of
from art_divqat.plan.written import write_config
from art_divqat.results.build import build_results, config_of, data_of
from art_divqat.results.journal import CellRecord, Header
from art_divqat.results.schema import Results

if TYPE_CHECKING:
    from art_divqat.victims.specs import VictimSpec
    from art_divqat.victims.victim import Victim


def run(
    config: ResolvedConfig,
    output: Path,
    *,
    store: Path | None = None,
    retrain: bool = False,
    watcher: Watcher | None = None,
    live: Victim | None = None,
    publish: Callable[[Results, Path], object] | None = None,
    decided: Callable[[Results], bool] | None = None,
) -> Results:
    """Run every cell of a configuration that the run folder does not hold yet, and build the results.

    :param config: what to evaluate, as :func:`art_divqat.api.prepare` gives it.
    :param output: the run folder: new, empty, or one of the same configuration, which is then continued.
    :param store: where trained victims are kept; the user's cache if not given.
    :param retrain: train the victims anew even if the store has them.
    :param live: the victim that an `external` one of the configuration stands for, where that is an object of this
        process.
    :param decided: whether a run with `seeds: auto` needs no more of them; it has as many as it may if not given.
    :param publish: called with the results and the folder, while no other process may write into it.
    :raises UserError: for anything in the configuration, the data or the folder that cannot be used; nothing is
        written then.
    """
    watcher = watcher or Silent()
    began = time.monotonic()
    folder = RunFolder(output)
    folder.check()
    if config.external is not None and config.external.is_remote:
        config = config.model_copy(update={"answers_file": folder.answers})
    with Executor(config, store or default_store(), watcher, live) as executor:
        if folder.journal.exists():
            header, _ = folder.journal.read()
            data = data_of(header, output)
            config = as_answered(config, data)
            _check_same(header, config, output)
            # the rest of the preflight cannot have changed since the run was begun
            check_attacks(config, data)
        else:
            watcher.working("0", "reading the data", 0, 0)
            ((_, data),) = executor.run([CheckAndDescribe()])
        executor.expect(data)
        with folder.locked():
            if config.external is not None and config.external.is_remote and not folder.journal.exists():
                watcher.working("0", "asking the endpoint", 0, 0)
                ((_, data["model"]),) = executor.run([DescribeModel()])
            config = as_answered(config, data)
            lines = _start_or_continue(folder, config, data)
            schedule, begun_with = looks_of(config), 0
            for seeds, following in zip(schedule, (*schedule[1:], None), strict=True):
                plan = plan_cells(at_look(config, seeds))
                done = {cell_id(line["cell"]) for line in lines}
                pending = [cell for cell in plan if cell.id not in done]
                if not pending:
                    begun_with = seeds
                _run_cells(folder, executor, Costs(config, data), retrain, pending, plan, watcher)
                header, lines = folder.journal.read()
                results = build_results(header, lines, plan, config.fail_on)
                if following is None or (decided is not None and decided(results)):
                    break
                each = (time.monotonic() - began) / max(seeds - begun_with, 1)
                if pending and time.monotonic() - began + each * (following - seeds) > 60 * config.max_minutes:
                    break
            if publish is not None:
                publish(results, output)
            return results


def _start_or_continue(folder: RunFolder, config: ResolvedConfig, data: dict[str, Any]) -> list[CellRecord]:
    if folder.journal.exists():
        header, lines = folder.journal.read(repair=True)
        _check_same(header, config, folder.path)
        return lines
    write_text_whole(folder.config, write_config(config, folder.config))
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


def _run_cells(
    folder: RunFolder,
    executor: Executor,
    costs: Costs,
    retrain: bool,
    pending: Sequence[Cell],
    plan: Sequence[Cell],
    watcher: Watcher,
) -> None:
    victims = list(dict.fromkeys((cell.victim, cell.seed) for cell in pending))
    whole = sum(map(costs.of_cell, plan)) + sum(map(costs.of_victim, {(cell.victim, cell.seed) for cell in plan}))
    ahead = sum(map(costs.of_cell, pending)) + sum(map(costs.of_victim, victims))
    watcher.planned(whole, whole - ahead)
    if not pending:
        return
    # Every victim first, and what it is quantized from before it: side by side, two cells of one victim or two
    # children of one parent would both train it.
    parents = [(victim.parent, seed) for victim, seed in victims]
    roots = [victim for victim, (parent, _) in zip(victims, parents, strict=True) if parent is None]
    roots += [(parent, seed) for parent, seed in parents if parent is not None]
    prepared: dict[tuple[VictimSpec, int], str | None] = {}
    for wave in (list(dict.fromkeys(roots)), [victim for victim in victims if victim not in roots]):
        tasks = [PrepareVictim(*victim, retrain) for victim in wave]
        for number, prepared[wave[number]] in executor.run(tasks):
            if wave[number] in victims:
                watcher.finished(tasks[number].description, costs.of_victim(wave[number]))
    cells = [MeasureCell(cell) for cell in pending]
    for number, line in executor.run(cells):
        cell = pending[number]
        _check_victim(cell, prepared[cell.victim, cell.seed], line)
        folder.journal.append(line)
        watcher.finished(cells[number].description, costs.of_cell(cell))


def _check_victim(cell: Cell, prepared: str | None, line: CellRecord) -> None:
    """Refuse the record of a cell that attacked a victim of its machine's own: those of one seed are compared."""
    used = line.get("victim_sha256")
    if used != prepared:
        raise UserError(
            f"Victim {cell.victim}, seed {cell.seed}, was trained twice, to other weights the second time "
            f"({str(prepared)[:8]}…, {str(used)[:8]}…): machines without a common cache folder need --victim-store URL."
        )
