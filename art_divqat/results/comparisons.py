"""Comparisons of groups of cells: victims with baselines, defences with none, every defence's best attacker.

Every interval and verdict on a difference is made here, those between two runs among them; reports only read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np
from pydantic import TypeAdapter

from art_divqat.metrics.estimator import Effect, best_of, best_of_rates, differences, over_seeds
from art_divqat.metrics.intervals import Interval, mean_interval
from art_divqat.metrics.table import METRICS, compared_by
from art_divqat.metrics.table import SAMPLES as _SAMPLES
from art_divqat.plan.cells import without_recovery
from art_divqat.results.effects import SIGNIFICANCE, Contrast, Fields, Packed, as_estimate, compare_contrasts
from art_divqat.results.journal import CellRecord, Group, group_seeds
from art_divqat.results.samples import curve_sample, unpack_all
from art_divqat.results.schema import Comparison
from art_divqat.victims.registry import baseline_of

# a quotient of two others is made from their samples
_RATIOS = tuple(name for name in compared_by("ratio") if name in _SAMPLES)
_QUOTIENTS = {
    name: row.quotient_of for name, row in METRICS.items() if "ratio" in row.compared and row.quotient_of is not None
}
_DIFFERENCES = compared_by("difference")
_CURVES = compared_by("curve_difference")
_DEFENCE_EFFECTS = compared_by("defence_effect")
_QUERY_FRACTIONS = compared_by("query_fraction")
_BEST_ATTACKERS = compared_by("best_attacker")
_QUERIES_ADDED = compared_by("queries_added")
_AT_ONCE = 4_096
# means of attackers that differ by less differ by rounding alone
_TIE = 12
_COMPARISONS = TypeAdapter(list[Comparison])


class _Seeds:
    """The records of one group, or of some of its seeds, in order."""

    def __init__(self, records: list[CellRecord]) -> None:
        self.records = records
        self.seeds = [record["cell"]["seed"] for record in records]
        self._packed: dict[str, Packed] = {}

    def __len__(self) -> int:
        return len(self.records)

    def packed(self, sample: str) -> Packed:
        """A sample of every seed; most are asked for many times."""
        if sample not in self._packed:
            self._packed[sample] = tuple([record["samples"][sample] for record in self.records])
        return self._packed[sample]

    def has(self, sample: str) -> bool:
        """Whether every seed kept this sample, as those of earlier versions may not have."""
        return all(sample in record["samples"] for record in self.records)

    def measured(self, metric: str) -> bool:
        """Whether any seed has it."""
        return any(metric in record["metrics"] for record in self.records)

    def values(self, metric: str) -> list[float | None]:
        """A metric of every seed; None where it has no value."""
        return [record["metrics"].get(metric) for record in self.records]

    def numbers(self, metric: str) -> list[float]:
        """A metric that every seed has a value of.

        :raises ValueError: if one has none.
        """
        numbers = [value for value in self.values(metric) if value is not None]
        if len(numbers) < len(self):
            raise ValueError(f"a cell without a value of {metric}")
        return numbers

    def any_above_zero(self, metric: str) -> bool:
        """Whether something can be divided by the metric."""
        return any(value > 0 for record in self.records if (value := record["metrics"][metric]) is not None)


_Groups = dict[Group, _Seeds]


def compare_cells(
    records: Sequence[CellRecord], victims: Sequence[str], significance: float = SIGNIFICANCE
) -> list[Comparison]:
    """Every comparison that the finished cells allow, in a fixed order, with verdicts at a level of significance."""
    groups = {key: _Seeds(of_group) for key, of_group in group_seeds(records).items()}
    fields = compare_contrasts(_contrasts(groups, victims), significance) + _best_attackers(groups)
    # many in one call: a model made by itself costs several times as much; not all, to have few of them twice
    made: list[Comparison] = []
    for start in range(0, len(fields), _AT_ONCE):
        made += _COMPARISONS.validate_python(fields[start : start + _AT_ONCE])
    return made


def _contrasts(groups: _Groups, victims: Sequence[str]) -> list[Contrast]:
    """Every comparison of two groups or more."""
    found: list[Contrast] = []
    # what asks nothing is no worse for a victim or a defence: compared with it is what asks
    asking = {key: group for key, group in groups.items() if key.budget}
    added = _queries_added(groups) if len(asking) < len(groups) else []
    groups = asking
    for key, group in groups.items():
        baseline = baseline_of(key.victim, victims)
        if baseline is not None and (other := groups.get(key._replace(victim=baseline))) is not None:
            found += _against_baseline(key, group, baseline, other)
    return [*found, *_defence_effects(groups), *_query_fractions(groups, victims), *added]


def _queries_added(groups: _Groups) -> list[Contrast]:
    """What each attacker who asks has above the best who asks nothing, against the same victim and defence."""
    without: dict[tuple[str, str], list[Group]] = {}
    for key in groups:
        if not key.budget:
            without.setdefault((key.victim, key.defence), []).append(key)
    found: list[Contrast] = []
    for key, group in groups.items():
        if not key.budget or not (bare := without.get((key.victim, key.defence))):
            continue
        for metric in _QUERIES_ADDED:
            best = max(bare, key=lambda each: rank(fmean(groups[each].numbers(metric))))
            sides = _pair(group, groups[best])
            if len(sides[0]):
                common: Fields = {**key._asdict(), "baseline": best.attack, "n_seeds": len(sides[0])}
                found.append(_contrast("queries_added", metric, _SAMPLES[metric], sides, common))
    return found


def paired_difference(metric: str, ours: Sequence[CellRecord], theirs: Sequence[CellRecord]) -> Effect:
    """The mean of a metric in `ours` less that in `theirs`, with its 95 % interval, in pairs of cells.

    Over seeds and test images where every record kept which images count, as in the `difference` of
    :func:`compare_cells`; else Student's t over the pairs, and no interval from one.

    :param ours: records that have a value of the metric, not empty.
    :param theirs: their counterparts, in the same order.
    """
    first, second = _Seeds(list(ours)), _Seeds(list(theirs))
    sample = _SAMPLES.get(metric, metric)
    if first.has(sample) and second.has(sample):
        rows = unpack_all((*first.packed(sample), *second.packed(sample)))
        if len({len(row) for row in rows}) == 1:
            return differences(np.stack(rows).reshape(1, 2, len(first), -1))[0]
    return over_seeds(_differences(metric, first, second), (-1.0, 1.0))


def rank(mean: float) -> float:
    """What attackers are ranked by: their mean, equal for two that differ by rounding alone; the first then counts."""
    return round(mean, _TIE)


def _pair(group: _Seeds, other: _Seeds) -> tuple[_Seeds, _Seeds]:
    """The seeds that both have, in the order of the first; the groups themselves if these are all."""
    if group.seeds == other.seeds:
        return group, other
    by_seed = dict(zip(other.seeds, other.records, strict=True))
    both = [(record, by_seed[seed]) for seed, record in zip(group.seeds, group.records, strict=True) if seed in by_seed]
    return _Seeds([record for record, _ in both]), _Seeds([record for _, record in both])


def _differences(metric: str, ours: _Seeds, theirs: _Seeds) -> list[float]:
    """Of each pair in which both have a value."""
    pairs = zip(ours.values(metric), theirs.values(metric), strict=True)
    return [float(a - b) for a, b in pairs if a is not None and b is not None]


def _contrast(kind: str, metric: str, sample: str, sides: Sequence[_Seeds], common: Fields) -> Contrast:
    """A comparison of one sample in two groups."""
    # without a defence the two agreements are one
    family = sample.replace("agrees_clean", "agrees")
    sets = [side.packed(sample) for side in sides]
    return Contrast(kind, metric, common, "ratio" if kind == "ratio" else "difference", family, sets)


def _against_baseline(key: Group, group: _Seeds, baseline: str, other: _Seeds) -> list[Contrast]:
    ours, theirs = sides = _pair(group, other)
    if not len(ours):
        return []
    common: Fields = {**key._asdict(), "baseline": baseline, "n_seeds": len(ours)}
    found: list[Contrast] = [
        _contrast("ratio", metric, _SAMPLES[metric], sides, common)
        for metric in _RATIOS
        if theirs.any_above_zero(metric)
    ]
    for metric, parts in _QUOTIENTS.items():
        names = [_SAMPLES[part] for part in parts]
        if all(side.has(name) for side in sides for name in names) and theirs.any_above_zero(parts[0]):
            sets = [side.packed(name) for side in sides for name in names]
            found.append(Contrast("ratio", metric, common, "ratio", names[0], sets))
    for metric in _DIFFERENCES:
        numbers = _differences(metric, ours, theirs)
        if not numbers or len(numbers) < len(ours):
            continue
        sample = _SAMPLES.get(metric, metric)
        if ours.has(sample) and theirs.has(sample):
            found.append(_contrast("difference", metric, sample, sides, common))
        else:
            found.append(Contrast("difference", metric, common, effect=over_seeds(numbers, (-1.0, 1.0))))
    return found + _curve_differences(ours, theirs, common)


def _curve_differences(ours: _Seeds, theirs: _Seeds, common: Fields) -> list[Contrast]:
    """At every radius above 0 that all curves have, and over these radii together."""
    found: list[Contrast] = []
    for metric in _CURVES:
        curves = [
            [point["epsilon"] for point in record["curves"].get(metric, [])]
            for record in (*ours.records, *theirs.records)
        ]
        radii = [radius for radius in curves[0] if radius > 0 and all(radius in curve for curve in curves)]
        for epsilon, over in [*((r, [r]) for r in radii), *([(None, radii)] if radii else [])]:
            names = [curve_sample(metric, radius) for radius in over]
            if all(side.has(name) for side in (ours, theirs) for name in names):
                sets = [side.packed(name) for side in (ours, theirs) for name in names]
                where = {**common, "epsilon": epsilon}
                found.append(Contrast("curve_difference", metric, where, family=metric, sets=sets))
    return found


def _defence_effects(groups: _Groups) -> list[Contrast]:
    """What each defence takes from the thief: thief accuracy and agreement with it minus without, paired by seed.

    An attack that undoes defences has nothing to undo without one: there it is the same attack without its recovery.
    """
    found: list[Contrast] = []
    for key, group in groups.items():
        if key.defence == "none":
            continue
        bare = groups.get(key._replace(defence="none"))
        if bare is None:
            bare = groups.get(key._replace(defence="none", attack=without_recovery(key.attack)))
        if bare is None:
            continue
        sides = _pair(group, bare)
        if not len(sides[0]):
            continue
        common: Fields = {**key._asdict(), "n_seeds": len(sides[0])}
        for metric in _DEFENCE_EFFECTS:
            if not sides[0].measured(metric):
                continue
            found.append(_contrast("defence_effect", metric, _SAMPLES[metric], sides, common))
    return found


def _query_fractions(groups: _Groups, victims: Sequence[str]) -> list[Contrast]:
    # the groups of one curve, which differ in their budget; its key is that of a group with a budget of 0
    curves: dict[Group, dict[int, _Seeds]] = {}
    for key, group in groups.items():
        curves.setdefault(key._replace(budget=0), {})[key.budget] = group
    found = []
    for curve, by_budget in curves.items():
        baseline = baseline_of(curve.victim, victims)
        other = curves.get(curve._replace(victim=baseline or ""))
        if baseline is None or other is None or sorted(other) != sorted(by_budget) or len(by_budget) < 2:
            continue
        budgets = sorted(by_budget)
        target = other[budgets[-1]]
        common: Fields = {
            **curve._replace(budget=budgets[-1])._asdict(),
            "baseline": baseline,
            "n_seeds": len(target),
        }
        in_order = [*(by_budget[budget] for budget in budgets), target]
        for metric in _QUERY_FRACTIONS:
            sample = _SAMPLES[metric]
            sets = [group.packed(sample) for group in in_order]
            found.append(Contrast("query_fraction", metric, common, "query fraction", sample, sets, budgets))
    return found


def _best_attackers(groups: _Groups) -> list[Fields]:
    """The attacker of the highest mean, for each victim, defence and budget, and what the best one has without luck."""
    # one place for all attackers of a victim under a defence, at a budget
    places: dict[Group, list[Group]] = {}
    for key in groups:
        places.setdefault(key._replace(attack="", answers=""), []).append(key)
    found: list[Fields] = []
    for attackers in places.values():
        for metric in _BEST_ATTACKERS:
            # of a model whose right answers nobody knows there is agreement alone
            if not any(groups[key].measured(metric) for key in attackers):
                continue
            best = max(attackers, key=lambda key: rank(fmean(groups[key].numbers(metric))))
            # chosen where it is not measured, which only those with the same seeds can be
            rivals = [groups[key] for key in attackers if groups[key].seeds == groups[best].seeds]
            found.append(
                {
                    "kind": "best_attacker",
                    "metric": metric,
                    "value": as_estimate(_of_best(metric, rivals)),
                    "n_seeds": len(groups[best]),
                    **best._asdict(),
                }
            )
    return found


def _of_best(metric: str, rivals: Sequence[_Seeds]) -> Interval:
    sample = _SAMPLES[metric]
    if all(group.has(sample) for group in rivals):
        rows = unpack_all([text for group in rivals for text in group.packed(sample)])
        if len({len(row) for row in rows}) == 1:
            return best_of(np.stack(rows).reshape(len(rivals), len(rivals[0]), -1))
    return mean_interval(best_of_rates([group.numbers(metric) for group in rivals]))
