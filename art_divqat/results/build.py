"""From a journal to results: cells in plan order, summaries over seeds, comparisons. No torch, no ART."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from art_divqat.errors import UserError
from art_divqat.metrics.intervals import Interval, mean_intervals, wilson_intervals
from art_divqat.metrics.table import METRICS
from art_divqat.plan.cells import Cell, plan_cells
from art_divqat.plan.config import ResolvedConfig
from art_divqat.results.comparisons import compare_cells
from art_divqat.results.effects import as_estimate
from art_divqat.results.flags import compute_flags
from art_divqat.results.gate import evaluate_gate
from art_divqat.results.journal import CellRecord, Group, Header, Journal, group_of
from art_divqat.results.schema import CellResult, Results, SummaryRow

# all in one call: a model made by itself costs several times as much
_CELLS = TypeAdapter(list[CellResult])
_ROWS = TypeAdapter(list[SummaryRow])
_Fields = dict[str, float | None]


def build_results(
    header: Header, records: Sequence[CellRecord], plan: Sequence[Cell], fail_on: Sequence[str] = ()
) -> Results:
    """Everything that results.json says, from the journal's header and records.

    The order of the records does not matter: cells come in the order of the plan; a cell that is not in the plan is
    left out and a cell that is there twice counts once.

    :param fail_on: the gate's conditions, such as `agreement.high>0.9`.
    """
    by_id = {Cell(**record["cell"]).id: record for record in records}
    finished = [by_id[cell.id] for cell in plan if cell.id in by_id]
    results = Results(
        tool=header["tool"],
        environment=header["environment"],
        started=header["started"],
        config=header["config"],
        data=header["data"],
        planned=len(plan),
        cells=_CELLS.validate_python(
            [
                {
                    **record["cell"],
                    "queries": record["queries"],
                    "metrics": record["metrics"],
                    "details": record["details"],
                    "curves": record["curves"],
                    "seconds": record["seconds"],
                }
                for record in finished
            ]
        ),
        summary=summarise(finished, header["data"]),
        comparisons=compare_cells(finished, header["config"]["victims"]),
    )
    gate = evaluate_gate(results, fail_on) if fail_on and results.cells else results.gate
    return results.model_copy(update={"flags": compute_flags(results), "gate": gate})


def read_results(folder: Path, fail_on: Sequence[str] = ()) -> Results:
    """The results of a run folder, finished or not, from its journal alone.

    :raises UserError: if there is no journal, it was changed, or it holds something else than a run.
    """
    header, records = Journal(folder / "journal.jsonl").read()
    config = config_of(header, folder)
    try:
        return build_results(header, records, plan_cells(config), fail_on)
    except UserError:
        raise
    except Exception as error:
        # the chain has no key: whoever writes a journal by hand can make it whole, with anything in it
        raise _strange(folder, error) from None


def config_of(header: Header, folder: Path) -> ResolvedConfig:
    """The configuration in the header of a journal.

    :raises UserError: if it holds none of this version.
    """
    try:
        return ResolvedConfig.model_validate(header["config"])
    except (KeyError, ValueError) as error:
        raise _strange(folder, error) from None


def data_of(header: Header, folder: Path) -> dict[str, Any]:
    """What the header of a journal says about the data, with all that a run asks of it.

    :raises UserError: if any of it is missing or of another kind.
    """
    try:
        data = header["data"]
        numbers = (data["dataset"]["train"], data["dataset"]["test"], data["pool"]["images"], data["evasion_images"])
        if not all(type(number) is int and number >= 0 for number in numbers) or data["pool"]["labelled"] not in (0, 1):
            raise ValueError(f"data of another kind: {data}")
    except (KeyError, TypeError, ValueError) as error:
        raise _strange(folder, error) from None
    return dict(data)


def _strange(folder: Path, error: Exception) -> UserError:
    told = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return UserError(f"The journal in {folder} is whole, and holds no run of this version: {told}.")


def group_seeds(records: Iterable[CellRecord]) -> dict[Group, list[CellRecord]]:
    """Records that differ only in their seed, in the order of their first appearance."""
    groups: dict[Group, list[CellRecord]] = defaultdict(list)
    for record in records:
        groups[group_of(record)].append(record)
    return groups


def summarise(records: Sequence[CellRecord], data: Mapping[str, Any]) -> list[SummaryRow]:
    """One row for every group of seeds, each metric with its 95 % interval.

    Over two seeds or more: Student's t over the seeds. One seed: Wilson's over the test images for rates, else none.
    """
    by_group = group_seeds(records)
    groups = list(by_group.values())
    # all samples of one metric and one size together: one call for thousands of groups
    samples: dict[tuple[str, int], list[tuple[int, list[float]]]] = defaultdict(list)
    for number, group in enumerate(groups):
        for name in group[0]["metrics"]:
            values = [value for record in group if (value := record["metrics"].get(name)) is not None]
            if len(values) == len(group):
                samples[name, len(group)].append((number, [float(value) for value in values]))
    found: list[dict[str, _Fields]] = [{} for _ in groups]
    for (name, _), given in sorted(samples.items()):
        for (number, _), interval in zip(given, _intervals(name, [each for _, each in given], data), strict=True):
            found[number][name] = as_estimate(interval)
    return _ROWS.validate_python(
        [
            {
                **key._asdict(),
                "n_seeds": len(group),
                "metrics": metrics,
                "curves": curves,
            }
            for (key, group), metrics, curves in zip(by_group.items(), found, _curves(groups, data), strict=True)
        ]
    )


def _curves(groups: Sequence[Sequence[CellRecord]], data: Mapping[str, Any]) -> list[dict[str, list[_Fields]]]:
    """Every curve of a group that all its seeds have over the same radii, each point with its metric's interval."""
    # those of one metric and one number of seeds together: one call for thousands of points
    points: dict[tuple[str, int], list[tuple[int, float, list[float]]]] = defaultdict(list)
    for number, group in enumerate(groups):
        for name, first in sorted(group[0]["curves"].items()):
            radii = [point["epsilon"] for point in first]
            of_seeds = [record["curves"].get(name, []) for record in group]
            if all([point["epsilon"] for point in curve] == radii for curve in of_seeds):
                for i, radius in enumerate(radii):
                    points[name, len(group)].append((number, radius, [curve[i]["value"] for curve in of_seeds]))
    found: list[dict[str, list[_Fields]]] = [{} for _ in groups]
    for (name, _), given in sorted(points.items()):
        intervals = _intervals(name, [values for *_, values in given], data)
        for (number, radius, _), interval in zip(given, intervals, strict=True):
            found[number].setdefault(name, []).append({"epsilon": radius, **as_estimate(interval)})
    return found


def _intervals(name: str, samples: Sequence[Sequence[float]], data: Mapping[str, Any]) -> list[Interval]:
    """The interval of a metric in each sample; all are of one size, a value a seed."""
    metric = METRICS.get(name)
    images = data["dataset"]["test"] if metric is not None and metric.images == "test" else data["evasion_images"]
    if samples and len(samples[0]) == 1 and metric is not None and metric.is_rate and metric.of_all and images:
        return wilson_intervals([values[0] for values in samples], images)
    return mean_intervals(samples, None if metric is None else metric.bounds) if samples else []
