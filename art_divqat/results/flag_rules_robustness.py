"""Flag rules on robustness: one function per flag, on what `audit/robustness.py` records.

After Carlini et al., On Evaluating Adversarial Robustness (2019), and Athalye, Carlini and Wagner, Obfuscated Gradients
Give a False Sense of Security (ICML 2018).
"""

from __future__ import annotations

from art_divqat.metrics.table import THIEF_ROBUST_ACCURACY, TRANSFER_ROBUST_ACCURACY
from art_divqat.results.flag_evidence import Evidence, Rule, first_few, group_label, offenders, percent, rule
from art_divqat.victims.registry import known_victim


@rule(
    "black-box-beats-white-box",
    "The white-box attack sees gradients and must be the stronger one. It is not, so it is too weak or gradients "
    "are masked: the robust accuracy is overstated.",
    "Read the lower figure. Use more steps or AutoAttack; check gradients.",
)
def black_box_wins(e: Evidence) -> str | None:
    """An attack without gradients fools victims, or examples from the victim fool thieves, that gradients do not."""
    return " ".join(filter(None, (_square_wins(e), _transfer_wins(e)))) or None


def _square_wins(e: Evidence) -> str | None:
    found = _below(e, "robust_accuracy_black_box")
    sentence = "Square, which sees no gradients, takes the victim's robust accuracy lower than the white-box attack, in"
    return f"{sentence} {first_few(found)}." if found else None


def _transfer_wins(e: Evidence) -> str | None:
    found = []
    for row in e.rows:
        transfer, white = (row.metrics.get(name) for name in (TRANSFER_ROBUST_ACCURACY, THIEF_ROBUST_ACCURACY))
        if transfer is not None and white is not None and transfer.mean < white.mean - e.tolerances.accuracy:
            found.append(group_label(row))
    sentence = "Examples crafted on the victim fool the thief more often than examples crafted on the thief itself in"
    return f"{sentence} {first_few(found)}." if found else None


@rule(
    "robust-accuracy-suspicious",
    "A network that was not hardened should lose most of its accuracy, and a hardened one some. Either ε is too "
    "small to matter on this data, or the attack is broken or its gradients are masked.",
    "Check ε (in units of [0, 1] pixels), use more steps, AutoAttack, and a score-based attack.",
)
def suspicious(e: Evidence) -> str | None:
    """The attack hardly lowers accuracy: below half for a plain victim, at all for a robust one."""
    epsilon = e.results.config.get("epsilon")
    if not isinstance(epsilon, int | float) or epsilon <= 0:
        return None
    found: dict[str, None] = {}
    for row in e.rows:
        accuracy, robust = row.metrics.get("victim_accuracy"), row.metrics.get("victim_robust_accuracy")
        if accuracy is None or robust is None:
            continue
        entry = known_victim(row.victim)
        hardened = entry is not None and entry.adversarial
        most = accuracy.mean - e.tolerances.accuracy if hardened else accuracy.mean / 2
        if robust.mean > most:
            found.setdefault(f"{row.victim} with {row.defence}: {percent(robust.mean)} of {percent(accuracy.mean)}")
    return f"The attack at ε = {epsilon:g} hardly lowers the accuracy of {first_few(found)}." if found else None


@rule(
    "zero-gradients",
    "A gradient attack cannot move these images at all: they count as robust without having been tested.",
    "Attack logits instead of probabilities, and add a score-based attack.",
)
def zero_gradients(e: Evidence) -> str | None:
    """Gradients vanish."""
    found = offenders(e.detail("zero_gradients"), lambda part: part > e.tolerances.accuracy)
    return (
        f"The gradient is exactly zero on up to {percent(max(found.values()))} of images in {first_few(found)}."
        if found
        else None
    )


@rule(
    "more-steps-matter",
    "The attack had not converged: robust accuracy is overstated.",
    "Raise evasion steps until the figure stands still.",
)
def more_steps(e: Evidence) -> str | None:
    """The attack had not converged."""
    found = _below(e, "robust_accuracy_more_steps")
    return f"More steps lower the robust accuracy further in {first_few(found)}." if found else None


def _below(e: Evidence, key: str) -> list[str]:
    robust = {
        group_label(row): row.metrics["victim_robust_accuracy"].mean
        for row in e.rows
        if "victim_robust_accuracy" in row.metrics
    }
    stronger = e.detail(key)
    return [name for name in stronger if name in robust and stronger[name] < robust[name] - e.tolerances.accuracy]


@rule(
    "large-epsilon-survived",
    "At an ε that allows any image to become grey nothing can be classified. What survives was not attacked.",
    "Check gradients and the attack's step size: steps × step size must reach ε.",
)
def large_epsilon(e: Evidence) -> str | None:
    """Images survive any change: more than chance, where all of them can be made grey."""
    classes = e.results.dataset.get("classes", 10)
    found = offenders(e.detail("robust_accuracy_large_epsilon"), lambda rate: rate > 1 / max(classes, 2))
    sentence = f"Up to {percent(max(found.values(), default=0.0))} of images survive an ε that hides everything in"
    return f"{sentence} {first_few(found)}." if found else None


@rule(
    "accuracy-rises-with-epsilon",
    "The smaller ball lies inside the larger one, so the attack at the larger ε missed what is there. Curves count "
    "an image that was fooled once as fooled from there on, and hide it.",
    "Read every point as an upper bound; take more steps or AutoAttack.",
)
def accuracy_rises(e: Evidence) -> str | None:
    """A larger ball leaves more accuracy, although the smaller one lies inside it."""
    found = offenders(e.detail("accuracy_rise"), lambda rise: rise > e.tolerances.accuracy)
    sentence = (
        f"A larger ε leaves the victim up to {100 * max(found.values(), default=0.0):.1f} points more accuracy in"
    )
    return f"{sentence} {first_few(found)}." if found else None


@rule(
    "evasion-sees-defence",
    "A postprocessor that rounds or perturbs scores hinders the attack without making the network more robust.",
    "Attack the network behind it as well, and read the lower figure.",
)
def defence_seen(e: Evidence) -> str | None:
    """Robust accuracy was measured through a postprocessor."""
    defended = {group_label(row) for row in e.rows if row.defence != "none"}
    found = [name for name in offenders(e.detail("evasion_sees_defence"), lambda seen: seen >= 1) if name in defended]
    return f"The evasion attack read its scores through the defence in {first_few(found)}." if found else None


@rule(
    "evasion-does-not-see-defence",
    "The robust accuracy is that of the network without its defence; a defence may lower or mask it.",
    "Read it as the network's own, or attack through the defence with a score-based attack.",
)
def defence_unseen(e: Evidence) -> str | None:
    """Robust accuracy is that of the undefended network."""
    defended = {group_label(row) for row in e.rows if row.defence != "none"}
    found = [name for name in offenders(e.detail("evasion_sees_defence"), lambda seen: seen < 1) if name in defended]
    found += [name for name in offenders(e.detail("own_defences"), lambda number: number > 0) if name not in found]
    return f"Robust accuracy was measured without the defence in {first_few(found)}." if found else None


RULES: tuple[Rule, ...] = (
    black_box_wins,
    suspicious,
    zero_gradients,
    more_steps,
    large_epsilon,
    accuracy_rises,
    defence_seen,
    defence_unseen,
)
