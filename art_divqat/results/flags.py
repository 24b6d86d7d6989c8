"""Flags: warn where part of an evaluation should not be trusted; docs/flags.md explains each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from art_divqat.results import flag_rules, flag_rules_robustness
from art_divqat.results.flag_rules import DETAILS as DETAILS
from art_divqat.results.flag_rules import Evidence
from art_divqat.results.flag_rules import Tolerances as Tolerances
from art_divqat.results.flag_rules import place as place
from art_divqat.results.schema import Flag, Results


@dataclass(frozen=True)
class Rule:
    """One flag: why it is raised (None keeps it silent), what it means, what to do."""

    name: str
    because: Callable[[Evidence], str | None]
    meaning: str
    remedy: str


def compute_flags(results: Results, tolerances: Tolerances | None = None) -> list[Flag]:
    """Every flag that these results raise, in the order of RULES.

    >>> [rule.name for rule in RULES][:2]
    ['incomplete', 'one-seed']
    """
    evidence = Evidence(results, tolerances or Tolerances())
    if not results.cells:
        return []
    raised = ((rule, rule.because(evidence)) for rule in RULES)
    return [
        Flag(name=rule.name, raised_because=reason, meaning=rule.meaning, remedy=rule.remedy)
        for rule, reason in raised
        if reason is not None
    ]


RULES: tuple[Rule, ...] = (
    Rule(
        "incomplete",
        flag_rules.incomplete,
        "Groups and comparisons may lack seeds, budgets or whole victims; the best attacker may be missing.",
        "Run the same command again: it goes on where it stopped.",
    ),
    Rule(
        "one-seed",
        flag_rules.one_seed,
        "Thieves of one recipe differ from seed to seed, often by more than defences do. One seed shows none of it: "
        "its intervals cover the test images alone.",
        "Run at least three seeds: --seeds 3.",
    ),
    Rule(
        "no-random-baseline",
        flag_rules.no_random_baseline,
        "Random queries on an equal recipe are hard to beat. Without them nobody knows whether a cleverer attack "
        "adds anything, or is even worse.",
        "Add --attack knockoff, which queries at random.",
    ),
    Rule(
        "only-soft-answers",
        flag_rules.only_soft,
        "A defence that changes probabilities and keeps labels does nothing against a thief who uses labels alone; "
        "such a thief may be the better one.",
        "Add hard answers: --answers soft --answers hard.",
    ),
    Rule(
        "no-adaptive-attacker",
        flag_rules.no_adaptive_attacker,
        "The defence was scored by attackers who do not know of it. One who does may undo it: its score "
        "is an upper bound.",
        "Add an attacker who undoes it: --attack knockoff:recovery=invert, dae, bayes or average.",
    ),
    Rule(
        "thief-undertrained",
        flag_rules.undertrained,
        "The attack was stopped early or fitted badly, so the victim looks harder to steal than it is.",
        "Give thieves more epochs or a fitting learning rate in thief_recipe.",
    ),
    Rule(
        "agreement-saturated",
        flag_rules.saturated,
        "The budgets cannot tell victims apart, and the fraction of queries for the same level is only an upper bound.",
        "Add smaller budgets.",
    ),
    Rule(
        "pool-overlaps-training-data",
        flag_rules.pool_overlap,
        "The attacker is given images that no attacker would have, and the thief learns from the victim's own memory.",
        "Query with another data set, or take the training images out of the pool.",
    ),
    Rule(
        "answers-off-simplex",
        flag_rules.off_simplex,
        "The victim answers with logits or unnormalised scores. A thief trained on them as probabilities is no "
        "measure of anything, and defences work on numbers that they were not made for.",
        "Put a softmax behind the model, or say that it gives logits.",
    ),
    Rule(
        "victim-nondeterministic",
        flag_rules.nondeterministic,
        "Agreement has a ceiling below 1, numbers do not repeat, and asking twice may average the noise away.",
        "Turn the randomness off, or add an attacker who repeats queries.",
    ),
    Rule(
        "victim-in-train-mode",
        flag_rules.train_mode,
        "Dropout and batch statistics are active: answers depend on the rest of the batch; accuracy is too low.",
        "Call eval() on the network before it is audited.",
    ),
    Rule(
        "labels-flipped",
        flag_rules.labels_flipped,
        "Rightful users get wrong answers. Part of what looks like protection is a victim that is worse.",
        "Use the defence's label-preserving mode, or weaken it; compare defended_accuracy.",
    ),
    Rule(
        "budget-not-exhausted",
        flag_rules.budget_left,
        "The attack did not use what it was given; at this budget the victim looks harder to steal than it is.",
        "Let the attack spend its budget, or state the number of queries that it made as the budget.",
    ),
    Rule(
        "black-box-beats-white-box",
        flag_rules_robustness.black_box_wins,
        "The white-box attack sees gradients and must be the stronger one. It is not, so it is too weak or gradients "
        "are masked: the robust accuracy is overstated.",
        "Read the lower figure. Use more steps or AutoAttack; check gradients.",
    ),
    Rule(
        "robust-accuracy-suspicious",
        flag_rules.suspicious,
        "A network that was not hardened should lose most of its accuracy, and a hardened one some. Either ε is too "
        "small to matter on this data, or the attack is broken or its gradients are masked.",
        "Check ε (in units of [0, 1] pixels), use more steps, AutoAttack, and a score-based attack.",
    ),
    Rule(
        "zero-gradients",
        flag_rules.zero_gradients,
        "A gradient attack cannot move these images at all: they count as robust without having been tested.",
        "Attack logits instead of probabilities, and add a score-based attack.",
    ),
    Rule(
        "more-steps-matter",
        flag_rules_robustness.more_steps,
        "The attack had not converged: robust accuracy is overstated.",
        "Raise evasion steps until the figure stands still.",
    ),
    Rule(
        "large-epsilon-survived",
        flag_rules_robustness.large_epsilon,
        "At an ε that allows any image to become grey nothing can be classified. What survives was not attacked.",
        "Check gradients and the attack's step size: steps × step size must reach ε.",
    ),
    Rule(
        "accuracy-rises-with-epsilon",
        flag_rules_robustness.accuracy_rises,
        "The smaller ball lies inside the larger one, so the attack at the larger ε missed what is there. Curves count "
        "an image that was fooled once as fooled from there on, and hide it.",
        "Read every point as an upper bound; take more steps or AutoAttack.",
    ),
    Rule(
        "evasion-sees-defence",
        flag_rules_robustness.defence_seen,
        "A postprocessor that rounds or perturbs scores hinders the attack without making the network more robust.",
        "Attack the network behind it as well, and read the lower figure.",
    ),
    Rule(
        "evasion-does-not-see-defence",
        flag_rules.defence_unseen,
        "The robust accuracy is that of the network without its defence; a defence may lower or mask it.",
        "Read it as the network's own, or attack through the defence with a score-based attack.",
    ),
)
