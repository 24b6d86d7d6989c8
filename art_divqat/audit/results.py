"""From a journal to results: cells in plan order, summaries over seeds, comparisons. No torch, no ART."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from art_divqat.audit.comparisons import as_estimate, compare_cells
from art_divqat.audit.config import ResolvedConfig
from art_divqat.audit.flags import compute_flags
from art_divqat.audit.gate import evaluate_gate
from art_divqat.audit.journal import Journal, canonical_json
from art_divqat.audit.plan import Cell, plan_cells
from art_divqat.audit.schema import CellResult, CurveEstimate, Estimate, Results, SummaryRow
from art_divqat.metrics.intervals import mean_interval, wilson_interval

# metrics that are rates over the test images, so that one seed alone has an interval too
_RATES_OVER_TEST = (
    "victim_accuracy",
    "defended_accuracy",
    "thief_accuracy",
    "agreement",
    "agreement_clean",
    "label_flip_rate",
)
_RATES_OVER_EVASION = ("victim_robust_accuracy", "thief_robust_accuracy", "transfer_robust_accuracy")
_UNIT = (*_RATES_OVER_TEST, *_RATES_OVER_EVASION, "transfer_attack_success")
_POSITIVE = ("extraction_ratio", "kl_divergence", "latency_us")


def build_results(
    header: dict[str, Any], lines: Sequence[dict[str, Any]], plan: Sequence[Cell], fail_on: Sequence[str] = ()
) -> Results:
    """Everything that results.json says, from the journal's header and lines.

    The order of the lines does not matter: cells come in the order of the plan; a cell that is not in the plan is left
    out and a cell that is there twice counts once.

    :param fail_on: the gate's conditions, such as `agreement.high>0.9`.
    """
    by_id = {Cell(**line["cell"]).id: line for line in lines}
    finished = [by_id[cell.id] for cell in plan if cell.id in by_id]
    results = Results(
        tool=header["tool"],
        environment=header["environment"],
        started=header["started"],
        config=header["config"],
        data=header["data"],
        planned=len(plan),
        cells=[
            CellResult(
                **line["cell"],
                queries=line["queries"],
                metrics=line["metrics"],
                details=line.get("details", {}),
                curves=line.get("curves", {}),
                seconds=line["seconds"],
            )
            for line in finished
        ],
        summary=summarise(finished, header["data"]),
        comparisons=compare_cells(finished, header["config"]["victims"]),
    )
    gate = evaluate_gate(results, fail_on) if fail_on and results.cells else results.gate
    return results.model_copy(update={"flags": compute_flags(results), "gate": gate})


def read_results(folder: Path, fail_on: Sequence[str] = ()) -> Results:
    """The results of a run folder, finished or not, from its journal alone.

    :raises UserError: if there is no journal, or it was changed.
    """
    header, lines = Journal(folder / "journal.jsonl").read()
    return build_results(header, lines, plan_cells(ResolvedConfig.model_validate(header["config"])), fail_on)


def group_seeds(lines: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Lines that differ only in their seed, in the order of their first appearance."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        groups[canonical_json({**line["cell"], "seed": None})].append(line)
    return groups


def summarise(lines: Sequence[dict[str, Any]], data: dict[str, Any]) -> list[SummaryRow]:
    """One row for every group of seeds, each metric with its 95 % interval.

    Over two seeds or more: Student's t over the seeds. One seed: Wilson's over the test images for rates, else none.
    """
    rows = []
    for group in group_seeds(lines).values():
        coordinates = {key: value for key, value in group[0]["cell"].items() if key != "seed"}
        names = [name for name in group[0]["metrics"] if all(line["metrics"].get(name) is not None for line in group)]
        metrics = {
            name: _estimate(name, [float(line["metrics"][name]) for line in group], data) for name in sorted(names)
        }
        curves = _curves([line.get("curves", {}) for line in group], data)
        rows.append(SummaryRow(**coordinates, n_seeds=len(group), metrics=metrics, curves=curves))
    return rows


def _curves(
    of_seeds: Sequence[dict[str, list[dict[str, float]]]], data: dict[str, Any]
) -> dict[str, list[CurveEstimate]]:
    """Every curve that all seeds have over the same radii, each point with the interval of its metric."""
    found = {}
    for name, first in sorted(of_seeds[0].items()):
        radii = [point["epsilon"] for point in first]
        if any([point["epsilon"] for point in curves.get(name, [])] != radii for curves in of_seeds):
            continue
        values = [[curves[name][i]["value"] for curves in of_seeds] for i in range(len(radii))]
        found[name] = [
            CurveEstimate(epsilon=radius, **_estimate(name, rates, data).model_dump())
            for radius, rates in zip(radii, values, strict=True)
        ]
    return found


def _estimate(name: str, values: list[float], data: dict[str, Any]) -> Estimate:
    bounds = (0.0, 1.0) if name in _UNIT else (0.0, 2.0) if name == "l1_distortion" else None
    if name in _POSITIVE:
        bounds = (0.0, float("inf"))
    interval = mean_interval(values, bounds)
    if len(values) == 1:
        images = data["dataset"]["test"] if name in _RATES_OVER_TEST else data["evasion_images"]
        if name in (*_RATES_OVER_TEST, *_RATES_OVER_EVASION) and images:
            interval = wilson_interval(values[0], images)
    return as_estimate(interval)
