"""Results, arranged for questions: what was run, what happened at the full budget, who was the best attacker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from art_divqat.metrics.intervals import Interval, mean_interval
from art_divqat.report.text import short_name
from art_divqat.results.schema import CellResult, Comparison, Results, SummaryRow

Change = Literal["higher", "lower", "cannot tell"]


def _order(names: Iterable[str], first: Sequence[str] = ()) -> list[str]:
    """Each name once, those of the configuration first and in its order."""
    found = dict.fromkeys(names)
    return [name for name in first if name in found] + [name for name in found if name not in set(first)]


@dataclass(frozen=True)
class Pair:
    """A defence and no defence, each with its best attacker, and the change of the metric from one to the other."""

    without: SummaryRow
    defended: SummaryRow
    difference: Interval
    change: Change


class View:
    """The questions that every form of the report asks of the results."""

    def __init__(self, results: Results) -> None:
        self.results = results
        asked = results.config.get("victims")
        self.victims = _order((row.victim for row in results.summary), asked if isinstance(asked, list | tuple) else ())
        self.defences = _order((row.defence for row in results.summary), ("none",))
        self._by_pair: dict[tuple[str, str], list[SummaryRow]] = {}
        for row in results.summary:
            self._by_pair.setdefault((row.victim, row.defence), []).append(row)
        self._cells: dict[tuple[str, ...], list[CellResult]] = {}
        for cell in results.cells:
            self._cells.setdefault(self._group(cell), []).append(cell)

        self._by_kind: dict[str, list[Comparison]] = {}
        for c in results.comparisons:
            self._by_kind.setdefault(c.kind, []).append(c)
        self._comparisons: dict[tuple[str, bool, bool], dict[tuple[str | None, str | None], list[Comparison]]] = {}

    @staticmethod
    def _group(row: CellResult | SummaryRow) -> tuple[str, ...]:
        return (row.dataset, row.victim, row.defence, row.attack, row.answers, str(row.budget))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every victim with every defence that it was tried with."""
        return [(v, d) for v in self.victims for d in self.defences if (v, d) in self._by_pair]

    def pair_name(self, victim: str, defence: str) -> str:
        """A victim and its defence, as short as the run allows."""
        name = short_name(victim, self.victims)
        return name if defence == "none" else f"{name} + {short_name(defence, self.defences)}"

    @staticmethod
    def agreement(row: SummaryRow | None) -> float:
        """How often the thief agrees; 0 where that was not measured."""
        return 0.0 if row is None or "agreement" not in row.metrics else row.metrics["agreement"].mean

    def rows(self, victim: str, defence: str, budget: int | None = None) -> list[SummaryRow]:
        """The rows of a victim under a defence at one budget; its largest one if none is given."""
        rows = self._by_pair.get((victim, defence), [])
        if not rows:
            return []
        budget = max(row.budget for row in rows) if budget is None else budget
        return [row for row in rows if row.budget == budget]

    def best(self, victim: str, defence: str, metric: str, budget: int | None = None) -> SummaryRow | None:
        """The row of the attacker that does best against a victim under a defence: the score of the defence."""
        rows = [row for row in self.rows(victim, defence, budget) if metric in row.metrics]
        return max(rows, key=lambda row: row.metrics[metric].mean, default=None)

    def most_stolen(self, metric: str = "agreement") -> SummaryRow | None:
        """The row, of all victims and defences, whose thief does best."""
        rows = [row for pair in self.pairs if (row := self.best(*pair, metric)) is not None]
        return max(rows, key=lambda row: row.metrics[metric].mean, default=None)

    def comparisons(self, kind: str, metric: str | None = None, victim: str | None = None) -> list[Comparison]:
        """The computed comparisons of one kind; of one metric and of one victim, if these are given."""
        by_metric, by_victim = metric is not None, victim is not None
        found = self._comparisons.get((kind, by_metric, by_victim))
        if found is None:
            # every metric and victim of the kind at once, when the first is asked for
            found = self._comparisons[kind, by_metric, by_victim] = {}
            for c in self._by_kind.get(kind, []):
                found.setdefault((c.metric if by_metric else None, c.victim if by_victim else None), []).append(c)
        return found.get((metric, victim), [])

    def defence_effect(self, victim: str, defence: str, metric: str, answers: str | None = None) -> Pair | None:
        """What a defence does to its best attacker, at the largest budget that was run with it and without.

        Paired by seed (Student's t) from two seeds on; with one seed it is told only by intervals that do not overlap.
        """
        budgets = [{row.budget for row in self._by_pair.get((victim, d), [])} for d in ("none", defence)]
        if not (common := budgets[0] & budgets[1]):
            return None
        best = []
        for name in ("none", defence):
            rows = [
                row
                for row in self.rows(victim, name, max(common))
                if metric in row.metrics and answers in (None, row.answers)
            ]
            if not rows:
                return None
            best.append(max(rows, key=lambda row: row.metrics[metric].mean))
        difference = self._paired_difference(best[1], best[0], metric)
        return Pair(best[0], best[1], difference, _change(difference, best[0], best[1], metric))

    def _paired_difference(self, row: SummaryRow, other: SummaryRow, metric: str) -> Interval:
        mean = row.metrics[metric].mean - other.metrics[metric].mean
        values = {cell.seed: cell.metrics.get(metric) for cell in self._cells.get(self._group(row), [])}
        others = {cell.seed: cell.metrics.get(metric) for cell in self._cells.get(self._group(other), [])}
        differences = []
        for seed, value in values.items():
            counterpart = others.get(seed)
            if value is not None and counterpart is not None:
                differences.append(value - counterpart)
        return mean_interval(differences, (-1.0, 1.0)) if len(differences) > 1 else Interval(mean, None, None)


def _change(difference: Interval, without: SummaryRow, defended: SummaryRow, metric: str) -> Change:
    if difference.low is not None and difference.high is not None:
        return "higher" if difference.low > 0 else "lower" if difference.high < 0 else "cannot tell"
    ours, theirs = defended.metrics[metric], without.metrics[metric]
    if ours.high is not None and theirs.low is not None and ours.high < theirs.low:
        return "lower"
    if ours.low is not None and theirs.high is not None and ours.low > theirs.high:
        return "higher"
    return "cannot tell"
