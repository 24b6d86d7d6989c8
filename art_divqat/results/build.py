"""Build results from a journal: cells in plan order, summaries over seeds, comparisons. No torch, no ART."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter

from art_divqat.errors import UserError
from art_divqat.metrics.estimator import rates, ratios
from art_divqat.metrics.intervals import Interval, mean_intervals, wilson_intervals
from art_divqat.metrics.table import METRICS, SAMPLES
from art_divqat.plan.cells import Cell, cell_id, plan_cells
from art_divqat.plan.config import ResolvedConfig
from art_divqat.plan.looks import as_far_as, number_of_looks
from art_divqat.results.comparisons import compare_cells
from art_divqat.results.effects import SIGNIFICANCE, as_estimate
from art_divqat.results.flags import compute_flags
from art_divqat.results.gate import evaluate_gate
from art_divqat.results.journal import CellRecord, Header, Journal, group_seeds
from art_divqat.results.probes import with_probes
from art_divqat.results.samples import curve_sample, number_of_images, unpack_all
from art_divqat.results.schema import CellResult, Results, SummaryRow

# all in one call: a model made by itself costs several times as much
_CELLS = TypeAdapter(list[CellResult])
_ROWS = TypeAdapter(list[SummaryRow])
_Fields = dict[str, float | None]
# samples that are unpacked at once
_UNPACKED = 256


class _Values(NamedTuple):
    """A metric in every seed of a group, and the packed samples that it is made of, seed by seed; empty if unkept."""

    values: list[float]
    packed: list[str]


def build_results(
    header: Header, records: Sequence[CellRecord], plan: Sequence[Cell], fail_on: Sequence[str] = ()
) -> Results:
    """Everything that results.json says, from the journal's header and records.

    The order of the records does not matter: cells come in the order of the plan; a cell that is not in the plan is
    left out and a cell that is there twice counts once.

    :param fail_on: the gate's conditions, such as `agreement.high>0.9`.
    """
    by_id = {cell_id(record["cell"]): record for record in records}
    finished = [by_id[cell.id] for cell in plan if cell.id in by_id]
    attackers = with_probes(finished)
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
        summary=summarise(attackers, header["data"]),
        comparisons=compare_cells(
            attackers, header["config"]["victims"], SIGNIFICANCE / number_of_looks(header["config"])
        ),
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
        begun = 1 + max((record["cell"]["seed"] for record in records), default=0)
        return build_results(header, records, plan_cells(as_far_as(config, begun)), fail_on)
    except UserError:
        raise
    except Exception as error:
        # the chain has no key: whoever writes a journal by hand can make it whole, with anything in it
        raise _malformed_journal(folder, error) from None


def config_of(header: Header, folder: Path) -> ResolvedConfig:
    """The configuration in the header of a journal.

    :raises UserError: if it holds none of this version.
    """
    try:
        return ResolvedConfig.model_validate(header["config"])
    except (KeyError, ValueError) as error:
        raise _malformed_journal(folder, error) from None


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
        raise _malformed_journal(folder, error) from None
    return dict(data)


def _malformed_journal(folder: Path, error: Exception) -> UserError:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return UserError(f"The journal in {folder} is whole, and holds no run of this version: {reason}.")


def summarise(records: Sequence[CellRecord], data: Mapping[str, Any]) -> list[SummaryRow]:
    """One row for every group of seeds, each metric with its 95 % interval.

    Over two seeds or more: of seeds and test images where the journal kept which images count, else Student's t over
    the seeds. One seed: Wilson's over the test images for rates, else none.
    """
    by_group = group_seeds(records)
    groups = list(by_group.values())
    # all samples of one metric and one size together: one call for thousands of groups
    samples: dict[tuple[str, int], list[tuple[int, _Values]]] = defaultdict(list)
    for number, group in enumerate(groups):
        for name in group[0]["metrics"]:
            values = [value for record in group if (value := record["metrics"].get(name)) is not None]
            if len(values) == len(group):
                samples[name, len(group)].append((number, _values(group, values, _sample_keys(name))))
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
    points: dict[tuple[str, int], list[tuple[int, float, _Values]]] = defaultdict(list)
    for number, group in enumerate(groups):
        for name, first in sorted(group[0]["curves"].items()):
            radii = [point["epsilon"] for point in first]
            of_seeds = [record["curves"].get(name, []) for record in group]
            if all([point["epsilon"] for point in curve] == radii for curve in of_seeds):
                for i, radius in enumerate(radii):
                    values = [curve[i]["value"] for curve in of_seeds]
                    keys = (curve_sample(name, radius),)
                    points[name, len(group)].append((number, radius, _values(group, values, keys)))
    found: list[dict[str, list[_Fields]]] = [{} for _ in groups]
    for (name, _), given in sorted(points.items()):
        intervals = _intervals(name, [values for *_, values in given], data)
        for (number, radius, _), interval in zip(given, intervals, strict=True):
            found[number].setdefault(name, []).append({"epsilon": radius, **as_estimate(interval)})
    return found


def _sample_keys(name: str) -> tuple[str, ...]:
    """The samples that a metric is made of: its own, or those of the two that it is the quotient of; none if unkept."""
    metric = METRICS.get(name)
    names = (name,) if metric is None or metric.quotient_of is None else metric.quotient_of
    return tuple([SAMPLES[each] for each in names]) if all(each in SAMPLES for each in names) else ()


def _values(group: Sequence[CellRecord], values: Sequence[float], keys: Sequence[str]) -> _Values:
    """What the seeds of a group measured of one metric, and of which images, where every one of two or more kept it."""
    kept = len(group) > 1 and all(key in record["samples"] for record in group for key in keys)
    packed = [record["samples"][key] for key in keys for record in group] if kept else []
    return _Values([float(value) for value in values], packed)


def _intervals(name: str, samples: Sequence[_Values], data: Mapping[str, Any]) -> list[Interval]:
    """The interval of a metric in each sample; all are of one size, a value a seed."""
    if not samples:
        return []
    values, metric = [each.values for each in samples], METRICS.get(name)
    seeds = len(values[0])
    images = data["dataset"]["test"] if metric is not None and metric.images == "test" else data["evasion_images"]
    if seeds == 1 and metric is not None and metric.is_rate and metric.of_all and images:
        return wilson_intervals([value for (value,) in values], images)
    found = mean_intervals(values, None if metric is None else metric.bounds)
    # those whose images are known, by how many there are
    known: dict[int, list[int]] = defaultdict(list)
    for number, each in enumerate(samples):
        size = number_of_images(each.packed)
        if size is not None:
            known[size].append(number)
    for size, numbers in known.items():
        for start in range(0, len(numbers), _UNPACKED):
            block = numbers[start : start + _UNPACKED]
            hits = np.stack(unpack_all([text for n in block for text in samples[n].packed]))
            tables = hits.reshape(len(block), -1, seeds, size)
            of_rates = tables.shape[1] == 1
            made = rates(tables[:, 0]) if of_rates else [Interval(*each[:3]) for each in ratios(tables)]  # type: ignore[arg-type]
            for n, (mean, low, high) in zip(block, made, strict=True):
                # the mean of the quotients of each seed is a little another one than that of all
                shift = found[n].mean / mean if not of_rates and mean else 1.0
                if low is not None and high is not None:
                    found[n] = Interval(found[n].mean, low * shift, high * shift)
    return found
