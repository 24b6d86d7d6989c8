"""Selection of plotted lines if not all fit: the headline's first, then the best attackers'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from art_divqat.report.findings import leading_comparison, leading_effect
from art_divqat.report.results_view import ResultsView
from art_divqat.report.text import counted
from art_divqat.results.schema import SummaryRow

Attacker = tuple[str, str]
Pair = tuple[str, str]
_MOST_NAMED = 6


def headline(view: ResultsView) -> tuple[list[Pair], list[Attacker]]:
    """The victims with their defences, and the attackers, that the finding speaks of, and the most stolen one."""
    pairs: list[Pair] = []
    attackers: list[Attacker] = []
    if (comparison := leading_comparison(view)) is not None:
        pairs += [(comparison.victim, comparison.defence), (comparison.baseline or "", comparison.defence)]
        attackers.append((comparison.attack, comparison.answers))
    rows = [] if (leading := leading_effect(view)) is None else [leading[1].defended, leading[1].best_without]
    if (most := view.most_stolen()) is not None:
        rows.append(most)
    pairs += [(row.victim, row.defence) for row in rows]
    attackers += [(row.attack, row.answers) for row in rows]
    return list(dict.fromkeys(pairs)), list(dict.fromkeys(attackers))


def most_telling(
    view: ResultsView,
    lines: Mapping[Attacker, Mapping[Pair, Sequence[SummaryRow]]],
    metric: str,
    most_attackers: int,
    most_pairs: int,
) -> tuple[list[Attacker], list[Pair]]:
    """The attackers and the pairs of victim and defence to show, each in the order of the run.

    Attackers: the headline's, then those that are the best against most pairs. Pairs: the headline's, then victims
    without a defence, then what is stolen best.
    """
    best: dict[Pair, tuple[float, Attacker]] = {}
    for attacker, by_pair in lines.items():
        for pair, rows in by_pair.items():
            value = max(row.metrics[metric].mean for row in rows)
            if pair not in best or value > best[pair][0]:
                best[pair] = (value, attacker)
    pairs_first, attackers_first = headline(view)
    wins = {attacker: sum(winner == attacker for _, winner in best.values()) for attacker in lines}
    top = {attacker: max(best[pair][0] for pair in by_pair) for attacker, by_pair in lines.items()}
    attackers = sorted(lines, key=lambda a: (_rank(a, attackers_first), -wins[a], -top[a]))[:most_attackers]
    seen = {pair for attacker in attackers for pair in lines[attacker]}
    pairs = sorted(seen, key=lambda p: (_rank(p, pairs_first), p[1] != "none", -best[p][0], p))[:most_pairs]
    return sorted(attackers, key=list(lines).index), sorted(pairs, key=view.pairs.index)


def strongest_rows(view: ResultsView, rows: Sequence[SummaryRow], most: int) -> list[SummaryRow]:
    """At most so many rows: the best attacker of each victim and defence, the headline's first; all if they fit."""
    if len(rows) <= most:
        return list(rows)
    best: dict[Pair, SummaryRow] = {}
    for row in rows:
        pair = (row.victim, row.defence)
        if pair not in best or view.agreement(row) > view.agreement(best[pair]):
            best[pair] = row
    first, _ = headline(view)
    chosen = sorted(best, key=lambda p: (_rank(p, first), p[1] != "none", -view.agreement(best[p]), p))[:most]
    return [best[pair] for pair in view.pairs if pair in chosen]


def left_out(what: str, names: Sequence[str]) -> str:
    """A sentence that names what a plot does not show; empty if it shows all.

    >>> left_out("attacker", ["jbda, soft answers"])
    ' Not shown, and in the table of all results: 1 attacker (jbda, soft answers).'
    """
    if not names:
        return ""
    more = f"; and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    number = counted(len(names), what)
    return f" Not shown, and in the table of all results: {number} ({'; '.join(names[:_MOST_NAMED])}{more})."


def _rank(name: tuple[str, str], first: Sequence[tuple[str, str]]) -> int:
    return first.index(name) if name in first else len(first)
