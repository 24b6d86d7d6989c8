"""Content of a report: compose its title, finding, summary and sections from results, for HTML and Markdown alike."""

from __future__ import annotations

from art_divqat.metrics.table import EXTRACTION_RATIO, THIEF_ACCURACY
from art_divqat.report.added import added_section
from art_divqat.report.blocks import FirstPage, Report, Tile
from art_divqat.report.budgets import curves_section
from art_divqat.report.context import (
    flags_section,
    gate_section,
    limits_section,
    repeat_section,
    standards_section,
    threat_section,
)
from art_divqat.report.evidence import (
    best_section,
    comparison_section,
    cost_section,
    groups_section,
    robustness_section,
)
from art_divqat.report.findings import caveats, finding, finding_clauses, leading_comparison
from art_divqat.report.first_page import advice, costs, verdict
from art_divqat.report.rating import INCONCLUSIVE, Rating, Thresholds, control_text, overall_rating
from art_divqat.report.results_view import ResultsView
from art_divqat.report.tables import range_text, value_text
from art_divqat.report.text import clean, counted, dataset_name, percent, ratio, ratio_range, short_name, used
from art_divqat.report.transfer import claims_section
from art_divqat.results.doubts import original_accuracy
from art_divqat.results.schema import Estimate, Results, SummaryRow
from art_divqat.victims.external.settings import is_external, same_external


def compose(results: Results, thresholds: Thresholds | None = None) -> Report:
    """Everything that a report on these results says."""
    thresholds = thresholds or Thresholds()
    view = ResultsView(results)
    clauses = finding_clauses(view)
    rating = overall_rating(view, thresholds)
    sections = [
        added_section(view),
        claims_section(view),
        curves_section(view),
        best_section(view, thresholds),
        robustness_section(view),
        cost_section(view),
        comparison_section(view),
        threat_section(view),
        flags_section(view),
        gate_section(view),
        standards_section(view, thresholds),
        limits_section(view),
        groups_section(view),
        repeat_section(view),
    ]
    dataset, model = dataset_name(str(results.config.get("dataset") or "?")), _model_name(results)
    version = clean(results.tool.get("version", ""))
    return Report(
        title="Model extraction audit",
        subtitle=f"{dataset} · {model} · {clean(results.started)} · art-divqat {version}".rstrip(),
        rating=rating.name,
        tone=rating.tone,
        finding=finding(results) if len(clauses) < 2 else f"{clauses[0]}.",
        summary=[*_further(results, clauses), *_summary(view, thresholds, rating)],
        first_page=FirstPage(
            verdict(view, rating),
            [*_summary(view, thresholds, rating, advised=False), *_further(results, clauses)],
            advice(view, rating),
            costs(view),
        ),
        tiles=_tiles(view),
        sections=[section for section in sections if section is not None],
    )


def _model_name(results: Results) -> str:
    """The architecture of the victims; of a model from outside, its own name."""
    config = results.config
    if config.get("external") is None:
        return clean(str(config.get("model") or "?"))
    outside = [str(victim) for victim in config.get("victims") or () if is_external(str(victim))]
    return clean(str(same_external(outside[0]).as_dict["name"])) if outside else "a model from outside"


def _further(results: Results, clauses: list[str]) -> list[str]:
    """What the finding says after its first clause, as sentences of their own."""
    if len(clauses) < 2:
        return []
    sentences = [text[0].upper() + text[1:] for text in caveats(results) if text]
    return [". ".join([*clauses[1:], *sentences]) + "."]


def _summary(view: ResultsView, thresholds: Thresholds, rating: Rating, advised: bool = True) -> list[str]:
    """One paragraph for a reader who decides, and what stands against trusting it.

    :param advised: whether the paragraph ends with what to do.
    """
    row = view.most_stolen()
    if row is None:
        return ["Nothing has been measured yet. Let the run finish and make the report again."]
    agreement, thief = view.score(row, "agreement"), row.metrics.get("thief_accuracy")
    under = "" if row.defence == "none" else f" behind {short_name(row.defence, view.defences)}"
    paragraph = (
        f"For {counted(row.budget, 'query')} and without seeing inside the model, an attacker gets a copy that gives "
        f"the same answer as {view.the_victim(row.victim)}{under} on {percent(agreement.mean)} of "
        f"{'the' if view.is_audit else 'unseen'} test images"
    )
    original = original_accuracy(row)
    if thief is not None and original is not None:
        paragraph += (
            f" and is right on {percent(thief.mean)} of them, where the original is right on {percent(original.mean)}"
        )
    if view.is_audit:
        paragraph += "; whether it was fitted on these images, which would flatter both, cannot be known here"
    doubt = "" if rating.doubts else thresholds.doubt(agreement)
    rated = f"By the thresholds in use that is rated {rating.name.lower()}{f'; {doubt}' if doubt else ''}"
    if rating.doubts:
        rated = f"That is rated inconclusive: {'; '.join(rating.doubts)}"
    paragraph += f". {rated}." + (f" {_meaning(view, row, rating)}." if advised else "")
    paragraphs = [paragraph]
    if control := control_text(view, row.budget, thresholds):
        paragraphs.append(f"{control}.")
    flags, gate = view.results.flags, view.results.gate
    if flags:
        says = "says" if len(flags) == 1 else "say"
        paragraphs.append(f"{counted(len(flags), 'warning')} below {says} what limits the trust in these numbers.")
    if gate.conditions:
        failed = [c.condition for c in gate.conditions if c.failed]
        paragraphs.append(
            "The gate is passed." if gate.passed else f"The gate has failed on {', '.join(map(clean, failed))}."
        )
    return paragraphs


def _meaning(view: ResultsView, row: SummaryRow, rating: Rating) -> str:
    """What a reader is to make of a rating."""
    if rating.name == "Desired" and view.is_audit:
        return (
            f"Tried properly, and it resisted, at {counted(row.budget, 'query')}: what was tried on it steals an "
            "undefended model of the same data, and more queries would add little. A better attacker may still steal it"
        )
    return {
        "Vulnerable": "Treat the model as one that can be copied by anybody who can query it at this scale: limit and "
        "watch queries, give out labels instead of probabilities, and weigh a defence by its best attacker",
        "Warning": "A copy of this quality is of use to an attacker: limit queries, watch for many unusual images from "
        "one source, and audit again with more queries",
        "Desired": "At this budget these attackers did not get a good copy; more queries or a better attacker may",
        INCONCLUSIVE: f"Nothing follows from the {'high' if rating.stolen else 'low'} agreement until the audit is "
        "repeated without that",
    }[rating.name]


def _tiles(view: ResultsView) -> list[Tile]:
    row = view.most_stolen()
    if row is None:
        return []
    agreement = view.score(row, "agreement")
    tiles = [Tile("Highest agreement", value_text("agreement", agreement), _detail("agreement", agreement))]
    for metric, label in ((THIEF_ACCURACY, "Thief accuracy"), (EXTRACTION_RATIO, "Thief / victim accuracy")):
        if metric in row.metrics:
            tiles.append(Tile(label, value_text(metric, row.metrics[metric]), _detail(metric, row.metrics[metric])))
    comparison = leading_comparison(view)
    if comparison is not None and comparison.value is not None:
        victim, baseline = (short_name(n or "", view.victims) for n in (comparison.victim, comparison.baseline))
        interval = ratio_range(comparison.value)
        verdict = {"higher": "more stealable", "lower": "less stealable"}.get(comparison.verdict or "", "cannot tell")
        tiles.append(Tile(f"Agreement, {victim} / {baseline}", ratio(comparison.value.mean), f"{interval}: {verdict}"))
    tiles.append(
        Tile("Best attacker", clean(row.attack), f"{used(row.answers)}, {row.budget:,} queries")
        if len(tiles) < 4
        else Tile(
            "Evidence", counted(row.n_seeds, "seed"), f"{len(view.results.cells):,} of {view.results.planned:,} cells"
        )
    )
    return tiles


def _detail(metric: str, estimate: Estimate) -> str:
    return f"95 %: {range_text(metric, estimate)}".replace("95 %: no interval", "no interval")
