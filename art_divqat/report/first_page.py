"""First page of the HTML report: the verdict in plain words, what to do, and what it costs, for a reader who decides.

All of it comes from the results alone. Markdown says the same in its summary and its sections.
"""

from __future__ import annotations

from art_divqat.metrics.table import THIEF_ACCURACY, select
from art_divqat.report.findings import leading_comparison, leading_effect
from art_divqat.report.rating import INCONCLUSIVE, Rating
from art_divqat.report.results_view import ResultsView
from art_divqat.report.tables import heading, value_text
from art_divqat.report.text import attacker, clean, counted, percent, seeds_to_tell, short_name
from art_divqat.results.schema import SummaryRow

_MOST_REMEDIES = 3
_MOST_DEFENCES = 3
# what a user notices: distances between probabilities stand with the other costs
_COSTS = select(lambda metric: metric.cost and metric.unit in ("fraction", "µs"))
_BY_RATING = {
    "Vulnerable": "Treat the model as one that can be copied by anybody who may query it at this scale: limit the "
    "queries of each client, and watch for many unusual images from one source.",
    "Warning": "Limit the queries of each client, watch for many unusual images from one source, and audit again with "
    "more queries.",
    "Desired": "Keep the limit on queries below the budget that was tried here, and audit again when the model or its "
    "interface changes.",
    INCONCLUSIVE: "Draw no conclusion yet: remove what is named above, and repeat the audit.",
}


def verdict(view: ResultsView, rating: Rating) -> str:
    """The rating as a sentence, about the victim that is stolen best."""
    row = view.most_stolen()
    if row is None:
        return "Nothing has been measured yet."
    if rating.name == INCONCLUSIVE:
        return "This audit allows no verdict."
    who = view.the_victim(row.victim)
    if row.defence != "none":
        who += f" behind {short_name(row.defence, view.defences)}"
    said = {
        "Vulnerable": f"{who} can be copied.",
        "Warning": f"{who} can be copied in part.",
        "Desired": f"no attacker got a good copy of {who}.",
    }[rating.name]
    return said[0].upper() + said[1:]


def advice(view: ResultsView, rating: Rating) -> list[str]:
    """What to do, the most important first: by the rating, by what was measured, and by the warnings."""
    row = view.most_stolen()
    if row is None:
        return ["Let the run finish, and make the report again."]
    points = [_BY_RATING[rating.name], *_labels(view, row), *_defence(view)]
    comparison = leading_comparison(view)
    if comparison is not None and comparison.verdict == "cannot tell" and (planned := seeds_to_tell(comparison)):
        victim, baseline = (short_name(n or "", view.victims) for n in (comparison.victim, comparison.baseline))
        points.append(f"Do not rank {victim} against {baseline} by this run: {planned}.")
    remedies = list(dict.fromkeys(clean(flag.remedy) for flag in view.results.flags))[:_MOST_REMEDIES]
    if remedies:
        text = " ".join(remedies)
        points.append(f"For a firmer audit: {text[0].lower()}{text[1:]}")
    return points


def _labels(view: ResultsView, row: SummaryRow) -> list[str]:
    """What an attacker is left with who gets labels alone, where both kinds of answers were tried."""
    rows = [each for each in view.rows(row.victim, row.defence) if each.budget]
    labels, probabilities = (
        max((view.agreement(each) for each in rows if (each.answers == "hard") is alone), default=0.0)
        for alone in (True, False)
    )
    if not labels or not probabilities:
        return []
    return [
        f"Weigh giving out labels alone: from them the best copy agrees on {percent(labels)} of test images, from "
        f"probabilities on {percent(probabilities)}."
    ]


def _defence(view: ResultsView) -> list[str]:
    leading = leading_effect(view)
    if leading is None:
        return []
    defence, effect, number = leading
    name = short_name(defence, view.defences)
    left = percent(effect.defended.metrics[THIEF_ACCURACY].mean)
    if effect.verdict != "lower":
        which = "none of the defences tried" if number > 1 else f"the defence {name}"
        return [f"Do not rely on {which}: the best thief loses nothing that can be told from zero."]
    least = ", which leaves the least of the defences tried," if number > 1 else ""
    return [f"Weigh the defence {name}{least} by its best attacker: that thief still has an accuracy of {left}."]


def costs(view: ResultsView) -> list[tuple[str, str]]:
    """What the theft costs an attacker, what the defences cost rightful users, and what the audit took."""
    row = view.most_stolen()
    if row is None:
        return []
    how = attacker(row.attack, row.answers)
    pays = f"{counted(row.budget, 'query')}, one image each, and the training of one network ({how})"
    rows = [("The attacker", f"{pays}." if row.budget else f"No query: {how}.")]
    leading = leading_effect(view)
    first = None if leading is None else (leading[1].defended.victim, leading[0])
    defended = sorted((pair for pair in view.pairs if pair[1] != "none"), key=lambda pair: pair != first)
    for victim, defence in defended[:_MOST_DEFENCES]:
        if text := _of_defence(view, victim, defence):
            rows.append((f"Users, behind {view.pair_name(victim, defence)}", text))
    if (left := len(defended) - _MOST_DEFENCES) > 0:
        rows.append(("", f"{left:,} more under What each defence costs."))
    spent = sum(cell.queries for cell in view.results.cells)
    seconds = sum(cell.seconds for cell in view.results.cells)
    rows.append(("This audit", f"{counted(spent, 'query')}, and {_duration(seconds)} of computing for its thieves."))
    return rows


def _of_defence(view: ResultsView, victim: str, defence: str) -> str:
    behind, bare = view.rows(victim, defence), view.rows(victim, "none")
    parts = []
    for metric in _COSTS:
        row = next((each for each in behind if metric in each.metrics), None)
        without = next((each for each in bare if metric in each.metrics), None)
        if row is not None:
            # the unit of a time stands in its heading
            name, unit, _ = heading(metric).lower().partition(" (µs)")
            parts.append(f"{name} {value_text(metric, row.metrics[metric])}{' µs' if unit else ''}")
            # without a defence nothing is flipped
            if without is not None and without.metrics[metric].mean:
                parts[-1] += f" (without it {value_text(metric, without.metrics[metric])})"
    return f"{'; '.join(parts)}." if parts else ""


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
