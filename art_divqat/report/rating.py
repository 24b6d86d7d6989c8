"""Ratings: classify agreement by the thresholds of the OWASP AI Testing Guide, AITG-APP-09, where evidence allows."""

from __future__ import annotations

from dataclasses import dataclass

from art_divqat._validation import parameter_error
from art_divqat.metrics.table import AGREEMENT, VICTIM_ACCURACY
from art_divqat.report.blocks import Tone
from art_divqat.report.results_view import ResultsView
from art_divqat.report.text import percent
from art_divqat.results.doubts import control_row, doubts_of_resistance, doubts_of_theft
from art_divqat.results.schema import Estimate, Results, SummaryRow

INCONCLUSIVE = "Inconclusive"


@dataclass(frozen=True)
class Rating:
    """What is said of a victim behind a defence.

    :param doubts: why the evidence carries no rating; empty unless it is inconclusive.
    :param stolen: whether its agreement is above a threshold, whatever that is worth.
    """

    name: str
    tone: Tone
    doubts: tuple[str, ...] = ()
    stolen: bool = False


@dataclass(frozen=True)
class Thresholds:
    """Agreement above `vulnerable` or above `warning`; the defaults are those of AITG-APP-09.

    :raises UserError: unless 0 <= warning <= vulnerable <= 1.
    """

    vulnerable: float = 0.90
    warning: float = 0.75

    def __post_init__(self) -> None:
        if not 0 <= self.warning <= self.vulnerable <= 1:
            raise parameter_error(
                "Thresholds",
                "warning",
                f"at most vulnerable ({self.vulnerable:g}), both in [0, 1]",
                self.warning,
            )

    def rate(self, agreement: Estimate | None) -> tuple[str, Tone]:
        """The rating of an agreement and how it is to be seen.

        >>> Thresholds().rate(Estimate(mean=0.95))
        ('Vulnerable', 'bad')
        """
        if agreement is None:
            return "Not measured", "unknown"
        if agreement.mean > self.vulnerable:
            return "Vulnerable", "bad"
        if agreement.mean > self.warning:
            return "Warning", "warn"
        return "Desired", "good"

    def doubt(self, agreement: Estimate | None) -> str:
        """The other rating that the interval reaches into, as the end of a sentence; empty if there is none."""
        if agreement is None or agreement.low is None or agreement.high is None:
            return ""
        rated = self.rate(agreement)[0]
        for bound in (agreement.high, agreement.low):
            if (other := self.rate(Estimate(mean=bound))[0]) != rated:
                return f"the interval reaches into {other.lower()}"
        return ""


def rate_row(view: ResultsView, row: SummaryRow, thresholds: Thresholds) -> Rating:
    """The rating of a victim behind a defence by its best attacker; of an audited model, only on enough evidence.

    :param row: of that attacker, at the largest budget.
    """
    name, tone = thresholds.rate(view.score(row, AGREEMENT))
    stolen = name != "Desired"
    if not view.is_audit:
        return Rating(name, tone, stolen=stolen)
    if stolen:
        level = thresholds.vulnerable if name == "Vulnerable" else thresholds.warning
        doubts = doubts_of_theft(view.results, row, level)
    else:
        doubts = doubts_of_resistance(view.results, row, thresholds.warning)
    return Rating(INCONCLUSIVE, "unknown", tuple(doubts), stolen) if doubts else Rating(name, tone, stolen=stolen)


def overall_rating(view: ResultsView, thresholds: Thresholds) -> Rating:
    """The rating of a run: that of what was stolen best, or that nothing was measured."""
    row = view.most_stolen()
    return Rating(*thresholds.rate(None)) if row is None else rate_row(view, row, thresholds)


def rating_sentence(results: Results, thresholds: Thresholds | None = None) -> str:
    """What an audit says of its model, in one sentence: the rating, or why there is none; empty for other runs."""
    return rating_text(ResultsView(results), thresholds or Thresholds())


def rating_text(view: ResultsView, thresholds: Thresholds) -> str:
    """The rating of an audited model in one sentence; empty for other runs, and where nothing was measured."""
    row = view.most_stolen()
    if row is None or not view.is_audit:
        return ""
    rating = rate_row(view, row, thresholds)
    agreement = f"agreement {percent(view.score(row, AGREEMENT).mean)} at {row.budget:,} queries"
    if rating.doubts:
        return f"Rating: inconclusive ({agreement}), as {'; '.join(rating.doubts)}."
    if rating.stolen:
        return f"Rating: {rating.name.lower()} ({agreement})."
    return f"Rating: desired ({agreement}): tried properly, and it resisted, at {row.budget:,} queries."


def control_text(view: ResultsView, budget: int, thresholds: Thresholds) -> str:
    """What the same attackers got of the control, and what that shows; empty where there is none and none is missed."""
    if not view.is_audit:
        return ""
    row = control_row(view.results, budget)
    audited = view.most_stolen()
    stolen = audited is not None and thresholds.rate(view.score(audited, AGREEMENT))[0] != "Desired"
    if row is None:
        # a theft needs no control to be seen
        without = (
            "There is no control: nothing shows that these attackers, with this pool and budget, can steal any model"
        )
        return "" if stolen else without
    agreement = view.score(row, AGREEMENT).mean
    shown = "it was stolen, so that the attack works on this data"
    if agreement <= thresholds.warning:
        shown = f"it was not stolen, {'but the audited model was' if stolen else 'so that the attack is too weak'}"
    config = view.results.config
    what = f"{row.victim}, {config.get('model')}"
    if config.get("training") == "probe" and config.get("weights") == config.get("thief_weights"):
        what += ", a last layer on the public network that the thieves have too: no model is easier to steal"
    if VICTIM_ACCURACY in row.metrics:
        what += f", right on {percent(row.metrics[VICTIM_ACCURACY].mean)} of the test images"
    return (
        f"Control: of an undefended model that was trained here on the same data ({what}), the same attackers with the "
        f"same pool and budget get a copy that agrees with it on {percent(agreement)} of them: {shown}"
    )
