"""Flag rules of robustness: reasons to distrust a measured robustness, from what `audit/robustness.py` records.

After Carlini et al., On Evaluating Adversarial Robustness (2019), and Athalye, Carlini and Wagner, Obfuscated Gradients
Give a False Sense of Security (ICML 2018).
"""

from __future__ import annotations

from art_divqat.results import flag_rules
from art_divqat.results.flag_rules import Evidence, listed, place, where


def black_box_wins(e: Evidence) -> str | None:
    """An attack without gradients fools victims, or examples from the victim fool thieves, that gradients do not."""
    return " ".join(filter(None, (_square_wins(e), flag_rules.black_box_wins(e)))) or None


def _square_wins(e: Evidence) -> str | None:
    found = _below(e, "robust_accuracy_black_box")
    told = "Square, which sees no gradients, takes the victim's robust accuracy lower than the white-box attack, in"
    return f"{told} {listed(found)}." if found else None


def more_steps(e: Evidence) -> str | None:
    """The attack had not converged."""
    found = _below(e, "robust_accuracy_more_steps")
    return f"More steps lower the robust accuracy further in {listed(found)}." if found else None


def _below(e: Evidence, key: str) -> list[str]:
    robust = {
        place(row): row.metrics["victim_robust_accuracy"].mean
        for row in e.rows
        if "victim_robust_accuracy" in row.metrics
    }
    stronger = e.detail(key)
    return [name for name in stronger if name in robust and stronger[name] < robust[name] - e.tolerances.accuracy]


def accuracy_rises(e: Evidence) -> str | None:
    """A larger ball leaves more accuracy, although the smaller one lies inside it."""
    found = where(e.detail("accuracy_rise"), lambda rise: rise > e.tolerances.accuracy)
    told = f"A larger ε leaves the victim up to {100 * max(found.values(), default=0.0):.1f} points more accuracy in"
    return f"{told} {listed(found)}." if found else None


def large_epsilon(e: Evidence) -> str | None:
    """Images survive any change: more than chance, where all of them can be made grey."""
    dataset = e.results.data.get("dataset")
    classes = dataset.get("classes", 10) if isinstance(dataset, dict) else 10
    found = where(e.detail("robust_accuracy_large_epsilon"), lambda rate: rate > 1 / max(classes, 2))
    told = f"Up to {max(found.values(), default=0.0):.1%} of images survive an ε that hides everything in"
    return f"{told} {listed(found)}." if found else None


def defence_seen(e: Evidence) -> str | None:
    """Robust accuracy was measured through a postprocessor."""
    defended = {place(row) for row in e.rows if row.defence != "none"}
    found = [name for name in where(e.detail("evasion_sees_defence"), lambda seen: seen >= 1) if name in defended]
    return f"The evasion attack read its scores through the defence in {listed(found)}." if found else None
