"""Results view: answer what was run, what happened at the full budget, and which attacker did best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from art_divqat.plan.cells import without_recovery
from art_divqat.report.text import short_name
from art_divqat.results.comparisons import rank
from art_divqat.results.effects import Verdict as Verdict
from art_divqat.results.effects import is_primary
from art_divqat.results.schema import Comparison, Estimate, Results, SummaryRow
from art_divqat.victims.external.settings import is_external
from art_divqat.victims.registry import is_control


def _order(names: Iterable[str], first: Sequence[str] = ()) -> list[str]:
    """Each name once, those of the configuration first and in its order."""
    unique = dict.fromkeys(names)
    return [name for name in first if name in unique] + [name for name in unique if name not in set(first)]


@dataclass(frozen=True)
class DefenceEffect:
    """What a defence does to the attacker that is best under it, as results.json compares that attacker with itself.

    :param defended: the best attacker under the defence.
    :param best_without: the best attacker without a defence, which may be another one.
    :param without: the attacker of `defended` without the defence; None if it was not run there.
    :param comparison: the `defence_effect` of `defended` over `without`; None if there is none.
    """

    defended: SummaryRow
    best_without: SummaryRow
    without: SummaryRow | None
    comparison: Comparison | None

    @property
    def verdict(self) -> Verdict:
        """What the comparison says; nothing without one."""
        return (self.comparison and self.comparison.verdict) or "cannot tell"

    @property
    def one_attacker(self) -> bool:
        """Whether one attacker is the best with the defence and without it."""
        return self.without is self.best_without


class ResultsView:
    """The questions that every form of the report asks of the results."""

    def __init__(self, results: Results) -> None:
        self.results = results
        requested = results.config.get("victims")
        first = requested if isinstance(requested, list | tuple) else ()
        # the control is there to judge the others by; it is none of them
        self.summary = [row for row in results.summary if not is_control(row.victim, results.config)]
        self.cells = [cell for cell in results.cells if not is_control(cell.victim, results.config)]
        self.victims = _order((row.victim for row in self.summary), first)
        self.defences = _order((row.defence for row in self.summary), ("none",))
        self._by_pair: dict[tuple[str, str], list[SummaryRow]] = {}
        for row in self.summary:
            self._by_pair.setdefault((row.victim, row.defence), []).append(row)
        self._by_kind: dict[str, list[Comparison]] = {}
        self._by_metric: dict[tuple[str, str], list[Comparison]] = {}
        for c in results.comparisons:
            self._by_kind.setdefault(c.kind, []).append(c)
            self._by_metric.setdefault((c.kind, c.metric), []).append(c)
        self._effects = {
            (c.victim, c.defence, c.metric, c.attack, c.answers, c.budget): c
            for c in self.comparisons("defence_effect")
        }
        self._added: dict[tuple[str, str, str], list[Comparison]] = {}
        for c in self.comparisons("queries_added"):
            self._added.setdefault((c.victim, c.defence, c.metric), []).append(c)
        self._scores = {
            (c.victim, c.defence, c.metric, c.attack, c.answers, c.budget): c.value
            for c in self.comparisons("best_attacker")
            if c.value is not None
        }

    @property
    def is_audit(self) -> bool:
        """Whether a model of somebody else's was audited: how it was trained, and on what, is not known."""
        return self.results.config.get("external") is not None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every victim with every defence that it was tried with."""
        return [(v, d) for v in self.victims for d in self.defences if (v, d) in self._by_pair]

    def pair_name(self, victim: str, defence: str) -> str:
        """A victim and its defence, as short as the run allows."""
        name = self.victim_name(victim).removeprefix("the ")
        return name if defence == "none" else f"{name} + {short_name(defence, self.defences)}"

    def victim_name(self, victim: str) -> str:
        """A victim by its name, as short as the run allows; of an audited model, which has none of ours, what it is."""
        return "the audited model" if is_external(victim) else short_name(victim, self.victims)

    def the_victim(self, victim: str) -> str:
        """A victim in a sentence."""
        name = self.victim_name(victim)
        return name if is_external(victim) else f"the {name} victim"

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
        return max(rows, key=lambda row: rank(row.metrics[metric].mean), default=None)

    def most_stolen(self, metric: str = "agreement") -> SummaryRow | None:
        """The row, of all victims and defences, whose thief does best."""
        rows = [row for pair in self.pairs if (row := self.best(*pair, metric)) is not None]
        return max(rows, key=lambda row: rank(row.metrics[metric].mean), default=None)

    def score(self, row: SummaryRow, metric: str) -> Estimate:
        """A metric of a row; of the best attacker without what it gains by being the largest of several."""
        key = (row.victim, row.defence, metric, row.attack, row.answers, row.budget)
        return self._scores.get(key, row.metrics[metric])

    def tested(self, kind: str, metric: str) -> int:
        """How many primary comparisons of one kind and metric have a test: their verdicts are corrected for so many.

        The same one in several rows is one test.
        """
        largest = max((c.budget for c in self.results.comparisons), default=0)
        found = [c for c in self.comparisons(kind, metric) if is_primary(c.budget, c.epsilon, largest)]
        unreached = sum(c.value is None and c.bound is not None for c in found)
        return unreached + len(
            {(v.mean, v.low, v.high) for c in found if (v := c.value) is not None and v.low is not None}
        )

    def comparisons(self, kind: str, metric: str | None = None) -> list[Comparison]:
        """The comparisons of one kind; of one metric, if it is given."""
        return self._by_kind.get(kind, []) if metric is None else self._by_metric.get((kind, metric), [])

    def added(self, victim: str, defence: str, metric: str) -> list[Comparison]:
        """What the queries of each attacker added to the attacker's own images alone."""
        return self._added.get((victim, defence, metric), [])

    def added_by_best(self, victim: str, defence: str, metric: str, budget: int) -> Comparison | None:
        """What the queries of the attacker that does best at a budget added."""
        best = self.best(victim, defence, metric, budget)
        if best is None:
            return None
        same = (best.attack, best.answers, budget)
        found = (c for c in self.added(victim, defence, metric) if (c.attack, c.answers, c.budget) == same)
        return next(found, None)

    def defence_effect(
        self, victim: str, defence: str, metric: str, answers: str | None = None
    ) -> DefenceEffect | None:
        """What a defence does to its best attacker, at the largest budget that was run with it and without.

        :param answers: the kind of answers that attackers may use; any if not given.
        """
        budgets = [{row.budget for row in self._by_pair.get((victim, d), [])} for d in ("none", defence)]
        if not (common := budgets[0] & budgets[1]):
            return None
        bare, defended = (
            [
                row
                for row in self.rows(victim, name, max(common))
                if metric in row.metrics and answers in (None, row.answers)
            ]
            for name in ("none", defence)
        )
        if not bare or not defended:
            return None
        best, best_without = (max(rows, key=lambda row: rank(row.metrics[metric].mean)) for rows in (defended, bare))
        comparison = self._effects.get((victim, defence, metric, best.attack, best.answers, best.budget))
        without = None
        if comparison is not None:
            by_attack = {row.attack: row for row in bare if row.answers == best.answers}
            without = by_attack.get(best.attack) or by_attack.get(without_recovery(best.attack))
        return DefenceEffect(best, best_without, without, comparison)
