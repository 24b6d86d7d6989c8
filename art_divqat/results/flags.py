"""Flags: reasons not to trust part of an evaluation, computed from its results; docs/flags.md explains each."""

from __future__ import annotations

from art_divqat.results import flag_rules, flag_rules_robustness
from art_divqat.results.flag_evidence import DIAGNOSTICS as DIAGNOSTICS
from art_divqat.results.flag_evidence import Evidence, Rule
from art_divqat.results.flag_evidence import Tolerances as Tolerances
from art_divqat.results.schema import Flag, Results

RULES: tuple[Rule, ...] = (*flag_rules.RULES, *flag_rules_robustness.RULES)


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
