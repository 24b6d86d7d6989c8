"""Doubts: reasons against concluding from an audit that a model was stolen, or that it resisted.

Agreement is a lower bound of what an attacker gets. That a model was stolen is therefore shown by one thief, unless its
agreement was made too high. That one resisted is shown only by attackers that would have stolen another one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from art_divqat.metrics.table import AGREEMENT, DEFENDED_ACCURACY, THIEF_ACCURACY, VICTIM_ACCURACY
from art_divqat.results.flag_evidence import Evidence, Tolerances, percent
from art_divqat.results.flag_rules import undertrained
from art_divqat.results.flags import RULES
from art_divqat.results.probes import is_probe, probed
from art_divqat.results.schema import Coordinates, Estimate, Results, SummaryRow
from art_divqat.victims.registry import CONTROL

# agreement that a doubling of the queries still adds
_RISE = 0.05
# of a pool: what is no more than a few stray copies
_OVERLAP = 0.01
# the chance that a class which as many answers as any other name is never seen
_MISSED = 0.05


def least_queries(classes: int) -> int:
    """K · ln(K / 0.05): so many answers, evenly of K classes, miss any class with a probability of at most 5 %.

    A thief cannot give a class that it never saw.

    >>> least_queries(2), least_queries(10), least_queries(1000)
    (8, 53, 9904)
    """
    return math.ceil(classes * math.log(classes / _MISSED))


def original_accuracy(row: SummaryRow) -> Estimate | None:
    """How often what was stolen from is right, behind its defence if it has one; None where that is not known."""
    return row.metrics.get(DEFENDED_ACCURACY) or row.metrics.get(VICTIM_ACCURACY)


def control_row(results: Results, budget: int) -> SummaryRow | None:
    """What the best attacker got, with as many queries, of the undefended model that was trained here; None if nothing.

    It is the control of the run, or the victim of its kind that was asked for by name.
    """
    rows = [
        row
        for row in results.summary
        if (row.victim, row.defence, row.budget) == (CONTROL, "none", budget) and AGREEMENT in row.metrics
    ]
    return max(rows, key=lambda row: row.metrics[AGREEMENT].mean, default=None)


def doubts_of_resistance(results: Results, row: SummaryRow, stolen: float) -> list[str]:
    """Why agreement this low may be the attackers' fault, each reason as a clause; empty if they tried properly.

    :param row: of the best attacker of a victim and defence, at the largest budget.
    :param stolen: agreement above it is a copy.
    """
    return [
        *_unfinished(results),
        *_of_control(results, row, stolen),
        *_of_budgets(results, row),
        *_of_original(row),
        *_of_flags(results, row),
    ]


def doubts_of_theft(results: Results, row: SummaryRow, stolen: float) -> list[str]:
    """Why agreement this high may be no theft, each reason as a clause; empty if it is one.

    :param row: of the best attacker of a victim and defence, at the largest budget.
    :param stolen: agreement above it is a copy.
    """
    found: list[str] = []
    constant = _detail(results, row, "majority_answer")
    if constant is not None and constant > stolen:
        found.append(
            f"the model gives {percent(constant)} of the test images one class, so that a constant agrees as much"
        )
    part, agreement = results.dataset.get("test_overlap", 0.0), row.metrics[AGREEMENT].mean
    # as if the thief agreed on every one of them
    if part and (part >= 1 or (agreement - part) / (1 - part) <= stolen):
        found.append(f"{percent(part)} of the test images are training or query images too")
    overlap = _detail(results, row, "pool_overlap") or 0.0
    if overlap > _OVERLAP:
        found.append(
            f"{percent(overlap)} of the attacker's pool are the victim's training images, which no attacker has"
        )
    return found


def _unfinished(results: Results) -> Iterator[str]:
    if len(results.cells) < results.planned:
        yield f"{len(results.cells):,} of {results.planned:,} cells have finished"


def _of_control(results: Results, row: SummaryRow, stolen: float) -> Iterator[str]:
    if row.victim == CONTROL:
        return
    control = control_row(results, row.budget)
    if control is None:
        wanted = bool(results.config.get("control"))
        yield "the control has not been measured" if wanted else "no control was run that shows what the attack can do"
        return
    reached = control.metrics[AGREEMENT].mean
    constant = _detail(results, control, "majority_answer")
    if reached <= stolen:
        yield (
            "the control, an undefended model trained here, was not stolen either "
            f"(agreement {percent(reached)}), so that the attack was too weak"
        )
    elif constant is not None and constant > stolen:
        yield f"the control gives {percent(constant)} of the test images one class, so that stealing it shows nothing"


def _of_budgets(results: Results, row: SummaryRow) -> Iterator[str]:
    classes = results.dataset.get("classes")
    if isinstance(classes, int) and classes > 1 and row.budget < (least := least_queries(classes)):
        yield f"{row.budget:,} queries are few for {classes:,} classes: at least {least:,} show a thief each of them"
    curve = _coordinates(row)[:-1]
    smaller = [each for each in results.summary if 0 < each.budget < row.budget and _coordinates(each)[:-1] == curve]
    before = max((other for other in smaller if AGREEMENT in other.metrics), key=lambda r: r.budget, default=None)
    if before is None:
        yield "one budget does not show whether more queries give more"
        return
    gained = row.metrics[AGREEMENT].mean - before.metrics[AGREEMENT].mean
    rise = gained / math.log2(row.budget / before.budget)
    if rise > _RISE:
        yield f"agreement still rises at the largest budget, by {100 * rise:.1f} points for twice the queries"


def _of_original(row: SummaryRow) -> Iterator[str]:
    original = original_accuracy(row)
    thief = row.metrics.get(THIEF_ACCURACY)
    if original is not None and thief is not None and thief.mean >= original.mean:
        yield (
            f"the copy is right on {percent(thief.mean)} of the test images and the original on "
            f"{percent(original.mean)}, so that it is worth as much, however seldom the two agree"
        )


def _of_flags(results: Results, row: SummaryRow) -> Iterator[str]:
    """The flags that void it, raised by what was tried on this victim and defence, and by its best attacker alone."""
    if is_probe(row.attack):
        yield "a linear classifier did better than the thief's network, which was not trained as it should be"
    tried = _part(
        results, lambda each: (each.victim, each.defence, each.budget) == (row.victim, row.defence, row.budget)
    )
    alone = _part(results, lambda each: _coordinates(each) == _of_cells(row))
    for rule in RULES:
        if is_probe(row.attack) and rule is undertrained:
            continue
        if rule.voids and rule.because(tried) is not None and (reason := rule.because(alone)) is not None:
            yield f"{reason[0].lower()}{reason[1:].rstrip('.')}"


def _part(results: Results, wanted: Callable[[Coordinates], bool]) -> Evidence:
    chosen = {"cells": list(filter(wanted, results.cells)), "summary": list(filter(wanted, results.summary))}
    return Evidence(results.model_copy(update=chosen), Tolerances())


def _coordinates(of: Coordinates) -> tuple[str, str, str, str, int]:
    return of.victim, of.defence, of.attack, of.answers, of.budget


def _of_cells(row: SummaryRow) -> tuple[str, str, str, str, int]:
    """Where the cells of a row stand: for a probe's, those whose answers it read."""
    return _coordinates(row.model_copy(update={"attack": probed(row.attack)}))


def _detail(results: Results, row: SummaryRow, key: str) -> float | None:
    """The largest value of a detail in the cells of a row."""
    cells = [cell for cell in results.cells if _coordinates(cell) == _of_cells(row)]
    return max((cell.details[key] for cell in cells if key in cell.details), default=None)
