"""Findings: state the main result in one plain sentence, for every kind of run."""

from __future__ import annotations

from art_divqat.report.added import added_clause
from art_divqat.report.results_view import DefenceEffect, ResultsView
from art_divqat.report.text import (
    attacker,
    corrected,
    counted,
    percent,
    percent_range,
    ratio,
    ratio_range,
    seeds_to_tell,
    short_name,
    undecided,
)
from art_divqat.results.schema import Comparison, Results, SummaryRow

_MOST_NAMED = 4


def finding(results: Results) -> str:
    """One sentence with the finding, for a terminal and for the first line of a report.

    It is about the first victim that has a baseline and is none, seen by the attacker that does best against it; about
    the defence that leaves its best attacker the least, if defences were compared; else about the victim that is
    stolen best.
    """
    clauses = finding_clauses(ResultsView(results))
    if not clauses:
        lack = "The finished cells have no agreement" if results.cells else "No cell has finished"
        return f"{lack}, so there is nothing to say yet."
    sentence = "; ".join([clauses[0], *(clause[0].lower() + clause[1:] for clause in clauses[1:])])
    so_far, one_seed = caveats(results)
    return f"{f'{so_far}: ' if so_far else ''}{sentence}{f' ({one_seed})' if one_seed else ''}."


def caveats(results: Results) -> tuple[str, str]:
    """What qualifies every clause: the run is not complete, there is one seed; each empty where it is not so."""
    so_far = one_seed = ""
    if len(results.cells) < results.planned:
        so_far = f"So far, with {len(results.cells):,} of {counted(results.planned, 'cell')} finished"
    if max((row.n_seeds for row in results.summary), default=0) == 1:
        one_seed = "one seed: how much another one would differ is not known"
    return so_far, one_seed


def finding_clauses(view: ResultsView) -> list[str]:
    """The clauses of the finding, each a sentence without its full stop.

    The victims', then the defences', then what the queries added to an attacker's own images.
    """
    clauses = [clause for clause in (_against_baseline(view), _of_defences(view)) if clause]
    clauses = clauses or [clause for clause in (_alone(view),) if clause]
    return [*clauses, *(clause for clause in (added_clause(view),) if clause)]


def leading_comparison(view: ResultsView, metric: str = "agreement") -> Comparison | None:
    """The comparison that the report leads with: the first victim that has a baseline, against its best attacker.

    A victim that is a baseline itself comes last: it is there for the sake of the other.
    """
    ratios = view.comparisons("ratio", metric)
    baselines = {c.baseline for c in ratios}
    for victim in sorted(view.victims, key=lambda name: name in baselines):
        of_victim = [c for c in ratios if c.victim == victim and c.value is not None]
        if not of_victim:
            continue
        defence = min((c.defence for c in of_victim), key=view.defences.index)
        of_victim = [c for c in of_victim if c.defence == defence]
        full = max(c.budget for c in of_victim)
        rows = [row for row in view.rows(victim, defence, full) if metric in row.metrics]
        rates = {(row.attack, row.answers): row.metrics[metric].mean for row in rows}
        return max(
            (c for c in of_victim if c.budget == full), key=lambda c: rates.get((c.attack, c.answers), float("-inf"))
        )
    return None


def is_decided(results: Results) -> bool:
    """Whether the leading comparison has a verdict: that of the finding's first clause, a ratio or a defence's effect.

    With it a run with `seeds: auto` ends.
    """
    view = ResultsView(results)
    comparison = leading_comparison(view)
    if comparison is None and (effect := leading_effect(view)) is not None:
        comparison = effect[1].comparison
    return comparison is not None and comparison.verdict in ("higher", "lower")


def row_of(view: ResultsView, comparison: Comparison) -> SummaryRow | None:
    """The summary row that a comparison is about."""
    rows = view.rows(comparison.victim, comparison.defence, comparison.budget)
    return next((r for r in rows if (r.attack, r.answers) == (comparison.attack, comparison.answers)), None)


def fraction_of(view: ResultsView, comparison: Comparison) -> Comparison | None:
    """The query fraction of the same curve as a ratio."""
    same = ("victim", "defence", "attack", "answers", "baseline", "metric")
    for other in view.comparisons("query_fraction"):
        if all(getattr(other, name) == getattr(comparison, name) for name in same):
            return other
    return None


def _against_baseline(view: ResultsView) -> str | None:
    comparison = leading_comparison(view)
    row = row_of(view, comparison) if comparison else None
    if comparison is None or row is None or comparison.value is None or "agreement" not in row.metrics:
        return None
    victim = view.the_victim(comparison.victim)
    baseline = short_name(comparison.baseline or "", view.victims)
    under = "" if comparison.defence == "none" else f" under {short_name(comparison.defence, view.defences)}"
    value = comparison.value
    sentence = (
        f"Stealing {victim}{under} with {comparison.budget:,} queries "
        f"({attacker(comparison.attack, comparison.answers)}) gives a thief that agrees with it on "
        f"{percent(view.score(row, 'agreement').mean)} of test images, {ratio(value.mean)} times"
    )
    if comparison.verdict in ("higher", "lower"):
        sentence += f" (95 % interval {ratio_range(value)}) the {baseline} victim's"
    elif value.low is None or value.high is None:
        sentence += f" the {baseline} victim's, with no interval to tell whether they differ"
    else:
        sentence += (
            f" the {baseline} victim's, an interval of {ratio_range(value)} that {undecided(comparison)}: "
            f"they cannot be told apart{_planned(comparison)}"
        )
    return sentence + _fraction_clause(fraction_of(view, comparison), baseline)


def _planned(comparison: Comparison) -> str:
    planned = seeds_to_tell(comparison)
    return f" ({planned})" if planned else ""


def _fraction_clause(fraction: Comparison | None, baseline: str) -> str:
    if fraction is None or fraction.bound is None:
        return ""
    level = f"the {baseline} thief's level"
    if fraction.value is None:
        unsure = "" if fraction.verdict == "higher" else ", though the interval does not rule it out"
        return f"; it does not reach {level} within the budget{unsure}"
    if fraction.bound == "at most":
        return f"; it reaches {level} with at most {ratio(fraction.value.mean)} of the queries"
    undecidable = fraction.verdict == "cannot tell" and fraction.value.low is not None
    includes = f", which {undecided(fraction)}" if undecidable else ""
    return (
        f"; it reaches {level} with {ratio(fraction.value.mean)} of the queries "
        f"(95 % interval {ratio_range(fraction.value)}{includes})"
    )


def leading_effect(view: ResultsView, metric: str = "thief_accuracy") -> tuple[str, DefenceEffect, int] | None:
    """The defence that leaves its best attacker the least, what it does, and how many defences were compared.

    By thief accuracy: agreement with served labels falls by itself where a defence changes labels.
    """
    for victim in view.victims:
        effects = {d: view.defence_effect(victim, d, metric) for d in view.defences if d != "none"}
        known = {d: effect for d, effect in effects.items() if effect is not None}
        if known:
            best = min(known, key=lambda d: known[d].defended.metrics[metric].mean)
            return best, known[best], len(known)
    return None


def _of_defences(view: ResultsView) -> str | None:
    leading = leading_effect(view)
    if leading is None:
        return None
    defence, effect, number = leading
    name = short_name(defence, view.defences)
    victim = view.the_victim(effect.defended.victim)
    who = f"Of {number} defences {name} leaves the least: it" if number > 1 else f"The defence {name}"
    sentence = f"{who} {_effect(effect, victim) if effect.one_attacker else _effect_on_another(effect, victim)}"
    bypassed = [name for name in view.defences if _bypassed(view, effect.defended.victim, name)]
    if defence in bypassed:
        soft, hard = map(_moved, _by_answers(view, effect.defended.victim, defence))
        sentence += f": the thief with soft answers is hurt ({soft}) but the one with hard answers is not ({hard})"
    others = [short_name(name, view.defences) for name in bypassed if name != defence]
    if others:
        more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
        names = f"{', '.join(others[:_MOST_NAMED])}{more}"
        sentence += f"; a thief that trains on labels alone loses nothing that can be told from zero to {names}"
    return sentence


def _effect(effect: DefenceEffect, victim: str) -> str:
    """What a defence does to the attacker that is the best with it and without it."""
    before, after = (row.metrics["thief_accuracy"] for row in (effect.best_without, effect.defended))
    quantity = f"the accuracy of the best thief of {victim} at {effect.defended.budget:,} queries"
    change = f"from {percent(before.mean)} to {percent(after.mean)} (95 % interval {percent_range(after)})"
    if effect.verdict == "lower":
        return f"lowers {quantity} {change}"
    if effect.verdict == "higher":
        return f"does not protect: it raises {quantity} {change}"
    correction = "" if effect.comparison is None else corrected(effect.comparison) + _planned(effect.comparison)
    return f"takes {quantity} {change}, a difference that cannot be told from zero{correction}"


def _effect_on_another(effect: DefenceEffect, victim: str) -> str:
    """What a defence does to the attacker that is the best under it, where another one is the best without it."""
    other, after = effect.best_without, effect.defended.metrics["thief_accuracy"]
    sentence = (
        f"leaves the best thief of {victim} at {effect.defended.budget:,} queries "
        f"({attacker(effect.defended.attack, effect.defended.answers)}) an accuracy of {percent(after.mean)} (95 % "
        f"interval {percent_range(after)}), "
    )
    if effect.without is None:
        sentence += "and that attacker was not compared with itself without it"
    else:
        than = f"the {percent(effect.without.metrics['thief_accuracy'].mean)} of that attacker without it"
        words = {"lower": "lower than ", "higher": "higher than "}
        sentence += words.get(effect.verdict, "not to be told from ") + than
    best = percent(other.metrics["thief_accuracy"].mean)
    return f"{sentence}; the best without it ({attacker(other.attack, other.answers)}) has {best}"


def _by_answers(view: ResultsView, victim: str, defence: str) -> tuple[DefenceEffect | None, DefenceEffect | None]:
    """What a defence does to the best thief with soft answers and to the best with hard ones."""
    soft, hard = (view.defence_effect(victim, defence, "thief_accuracy", kind) for kind in ("soft", "hard"))
    return soft, hard


def _bypassed(view: ResultsView, victim: str, defence: str) -> bool:
    """Whether the thief that uses probabilities is hurt and the one that uses labels is not."""
    if defence == "none":
        return False
    soft, hard = _by_answers(view, victim, defence)
    if soft is None or hard is None or hard.comparison is None:
        return False
    return soft.verdict == "lower" and hard.verdict != "lower"


def _moved(effect: DefenceEffect | None) -> str:
    assert effect is not None
    assert effect.without is not None
    before, after = (row.metrics["thief_accuracy"].mean for row in (effect.without, effect.defended))
    return f"{percent(before)} → {percent(after)}"


def _alone(view: ResultsView) -> str | None:
    row = view.most_stolen()
    if row is None:
        return None
    which = view.the_victim(row.victim) + (
        "" if len(view.victims) == 1 else f", the most stealable of {len(view.victims)},"
    )
    under = "" if row.defence == "none" else f" under {short_name(row.defence, view.defences)}"
    agreement = view.score(row, "agreement")
    return (
        f"Stealing {which}{under} with {row.budget:,} queries gives the best attacker "
        f"({attacker(row.attack, row.answers)}) a thief that agrees with it on {percent(agreement.mean)} of test "
        f"images (95 % interval {percent_range(agreement)}); there is no baseline to compare it with"
    ).replace("(95 % interval no interval)", "(no interval)")
