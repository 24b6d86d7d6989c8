"""Compare groups of cells: estimates, intervals and, corrected together, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from art_divqat.metrics.estimator import Effect, differences, query_fraction, ratios
from art_divqat.metrics.intervals import Interval
from art_divqat.metrics.verdicts import MOST_SEEDS as MOST_SEEDS
from art_divqat.metrics.verdicts import SIGNIFICANCE as SIGNIFICANCE
from art_divqat.metrics.verdicts import Verdict as Verdict
from art_divqat.metrics.verdicts import judge, seeds_needed
from art_divqat.results.samples import unpack_all

# a sample of every seed of a group, each as text
Packed = tuple[str, ...]
# the fields of a Comparison before it is one
Fields = dict[str, Any]
_Places = tuple[int, ...]
_UNKNOWN = Effect(None, None, None, None)


@dataclass(frozen=True)
class Contrast:
    """A comparison before its verdict: what is compared, or the effect itself if no samples say more.

    :param family: what the samples are of: comparisons of one family are estimated together, and then let go.
    :param form: what is made of the sets; the sets of a query fraction are those over the budgets and, last, the one to
        reach.
    :param budgets: of a query fraction, those of its sets but the last.
    """

    kind: str
    metric: str
    common: Fields
    form: Literal["difference", "ratio", "query fraction"] = "difference"
    family: str = ""
    sets: Sequence[Packed] = ()
    budgets: Sequence[int] = ()
    effect: Effect | None = None

    @property
    def neutral(self) -> float:
        """The value that says that there is no effect."""
        return 0.0 if self.form == "difference" else 1.0


class _Sets:
    """The hits behind samples; what several groups share, such as the victim's own, is there once."""

    def __init__(self, sets: Iterable[Packed]) -> None:
        distinct = list(dict.fromkeys(sets))
        texts = list(dict.fromkeys(text for each in distinct for text in each))
        rows = dict(zip(texts, unpack_all(texts), strict=True))
        self.hits: list[NDArray[np.bool_]] = [np.stack([rows[text] for text in each]) for each in distinct]
        self._places = {each: number for number, each in enumerate(distinct)}

    def places(self, sets: Sequence[Packed]) -> _Places:
        """Where the hits of each of these samples are."""
        return tuple([self._places[each] for each in sets])


def compare_contrasts(contrasts: Sequence[Contrast], significance: float = SIGNIFICANCE) -> list[Fields]:
    """Every comparison with its estimate and its verdict, in the same order.

    Those of one kind and metric are tested together, see :func:`art_divqat.metrics.verdicts.judge`: the primary ones as
    one family, and the others as another one. What is the same comparison in several rows, as that of two victims in
    the rows of every attacker, is one test. Each that cannot be told says how many seeds would tell it.

    :param significance: how likely a false verdict in a family may be.
    """
    effects = _estimate(contrasts)
    largest = max((each.common["budget"] for each in contrasts), default=0)
    together: dict[tuple[str, str, bool], dict[object, list[int]]] = {}
    for number, each in enumerate(contrasts):
        same = number if each.effect is not None else (tuple(each.sets), tuple(each.budgets))
        primary = is_primary(each.common["budget"], each.common.get("epsilon"), largest)
        together.setdefault((each.kind, each.metric, primary), {}).setdefault(same, []).append(number)
    found: list[Fields] = [{}] * len(contrasts)
    for alike in together.values():
        tested = [effects[numbers[0]] for numbers in alike.values()]
        judged = judge(tested, contrasts[next(iter(alike.values()))[0]].neutral, significance)
        needed = _seeds_needed(tested, judged, significance)
        for numbers, verdict, seeds in zip(alike.values(), judged, needed, strict=True):
            for n in numbers:
                found[n] = _fields(contrasts[n], effects[n], verdict) | {"seeds_needed": seeds}
    return found


def is_primary(budget: int, epsilon: float | None, largest: int) -> bool:
    """Whether a comparison is one of those that a run is made for, told before anything is measured.

    It is at the largest budget, and not at a single radius of a curve: smaller budgets and single radii describe how
    the answer comes about. Attackers, victims and defences are not left out: the report chooses among them.
    """
    return budget == largest and epsilon is None


def _seeds_needed(effects: Sequence[Effect], verdicts: Sequence[Verdict], significance: float) -> list[float | None]:
    """The seeds that would tell each that cannot be told; None for the others, and where nothing is known of seeds."""
    undecided = [
        effect.parts if verdict == "cannot tell" and effect.p_value is not None else None
        for effect, verdict in zip(effects, verdicts, strict=True)
    ]
    known = [parts for parts in undecided if parts is not None]
    # Holm's step for those that are left
    needed = iter(seeds_needed(known, significance / max(len(known), 1)))
    return [None if parts is None else next(needed) for parts in undecided]


def as_estimate(interval: Interval | Effect) -> dict[str, float | None]:
    """An interval with the names that results are written in."""
    return {"mean": interval[0], "low": interval[1], "high": interval[2]}


def _fields(contrast: Contrast, effect: Effect, verdict: Verdict) -> Fields:
    value = None if effect.mean is None else as_estimate(effect)
    fields = {"kind": contrast.kind, "metric": contrast.metric, "value": value, "verdict": verdict, **contrast.common}
    if contrast.form == "query fraction" and effect.p_value is not None:
        smallest = contrast.budgets[0] / contrast.budgets[-1]
        fields["bound"] = "not reached" if value is None else "at most" if effect.mean == smallest else "exact"
    return fields


def _estimate(contrasts: Sequence[Contrast]) -> list[Effect]:
    """The effect of each; those of one family together, not more, for their hits are all in memory."""
    families: dict[str, list[int]] = {}
    for number, each in enumerate(contrasts):
        if each.effect is None:
            families.setdefault(each.family, []).append(number)
    found = [each.effect or _UNKNOWN for each in contrasts]
    for numbers in families.values():
        sets = _Sets(one for n in numbers for one in contrasts[n].sets)
        # many comparisons are of the same hits: without a defence the two agreements are one
        alike: dict[tuple[str, Sequence[int], _Places], list[int]] = {}
        for n in numbers:
            each = contrasts[n]
            alike.setdefault((each.form, tuple(each.budgets), sets.places(each.sets)), []).append(n)
        for (form, budgets, places), effect in zip(alike, _of_sets(list(alike), sets.hits), strict=True):
            for n in alike[form, budgets, places]:
                found[n] = effect
    return found


_FORMS: dict[str, Callable[[NDArray[np.bool_]], list[Effect]]] = {"difference": differences, "ratio": ratios}
_AT_ONCE = 1 << 22


def _of_sets(requests: Sequence[tuple[str, Sequence[int], _Places]], hits: Sequence[NDArray[np.bool_]]) -> list[Effect]:
    """The effect of each form, budgets and places of hits."""
    found = [_UNKNOWN] * len(requests)
    by_shape: dict[tuple[str, int, tuple[int, ...]], list[int]] = {}
    for number, (form, budgets, places) in enumerate(requests):
        shapes = {hits[place].shape for place in places}
        if len(shapes) > 1:
            continue
        if form == "query fraction":
            found[number] = query_fraction(np.stack([hits[p] for p in places[:-1]]), hits[places[-1]], budgets)
        else:
            by_shape.setdefault((form, len(places), shapes.pop()), []).append(number)
    for (form, sets, (seeds, images)), numbers in by_shape.items():
        step = max(1, _AT_ONCE // max(sets * seeds * images, 1))
        for start in range(0, len(numbers), step):
            block = numbers[start : start + step]
            stacked = np.stack([np.stack([hits[place] for place in requests[n][2]]) for n in block])
            for n, effect in zip(block, _FORMS[form](stacked), strict=True):
                found[n] = effect
    return found
