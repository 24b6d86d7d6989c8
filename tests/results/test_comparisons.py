"""Comparisons of groups of cells: what is paired with what, and by which interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from support.builders import read_cell

from art_divqat.metrics.intervals import mean_interval, paired_bootstrap
from art_divqat.results.comparisons import compare_cells, paired_difference
from art_divqat.results.journal import CellRecord, cell_record
from art_divqat.results.samples import pack, unpack
from art_divqat.results.schema import Comparison

HEURISTIC = "heuristic:beta=0.9"


def thieves(
    rate: float,
    *,
    defence: str = "none",
    attack: str = "knockoff",
    answers: str = "soft",
    seeds: Sequence[int] = (0, 1, 2),
    samples: bool = True,
) -> list[CellRecord]:
    """One thief a seed, right and in agreement on a share of 300 images."""
    records = []
    for seed in seeds:
        hits = np.random.default_rng(seed).random(300) < rate
        packed = {name: pack(hits) for name in ("thief_correct", "agrees", "agrees_clean")}
        records.append(
            cell_record(
                read_cell("digits", "standard", defence, attack, answers, 100, seed),
                queries=100,
                metrics=dict.fromkeys(("thief_accuracy", "agreement", "agreement_clean"), float(hits.mean())),
                samples=packed if samples else {},
                seconds=1.0,
            )
        )
    return records


def effects(records: Sequence[CellRecord]) -> dict[tuple[str, str], Comparison]:
    found = [c for c in compare_cells(records, ["standard"]) if c.kind == "defence_effect"]
    return {(c.attack, c.answers): c for c in found if c.metric == "thief_accuracy"}


def hits(records: Sequence[CellRecord]) -> np.ndarray:
    return np.stack([unpack(record["samples"]["thief_correct"]) for record in records])


def test_an_attack_that_undoes_a_defence_is_compared_with_itself_with_nothing_to_undo() -> None:
    bare, plain = thieves(0.8), thieves(0.3, defence=HEURISTIC)
    undoing = thieves(0.6, defence=HEURISTIC, attack="knockoff:recovery=dae,pairs=500")
    found = effects([*bare, *plain, *undoing])
    assert set(found) == {("knockoff", "soft"), ("knockoff:recovery=dae,pairs=500", "soft")}
    for records, attack in ((plain, "knockoff"), (undoing, "knockoff:recovery=dae,pairs=500")):
        expected = paired_bootstrap(hits(records), hits(bare), np.subtract)
        value = found[attack, "soft"].value
        assert value is not None
        assert (value.mean, value.low, value.high) == pytest.approx(tuple(expected))
        assert found[attack, "soft"].verdict == "lower"


def test_an_attack_that_ran_without_the_defence_is_compared_with_itself_as_it_ran() -> None:
    averaging = "knockoff:recovery=average,repeats=2"
    found = effects(
        [*thieves(0.8), *thieves(0.4, attack=averaging), *thieves(0.6, defence=HEURISTIC, attack=averaging)]
    )
    assert found[averaging, "soft"].verdict == "higher"


def test_no_effect_without_a_counterpart() -> None:
    assert not effects([*thieves(0.8, answers="hard"), *thieves(0.6, defence=HEURISTIC)])
    assert not effects([*thieves(0.8, seeds=(0, 1)), *thieves(0.6, defence=HEURISTIC, seeds=(2, 3))])


def test_only_seeds_that_both_have_are_paired() -> None:
    bare, defended = thieves(0.8, seeds=(2, 0, 5)), thieves(0.6, defence=HEURISTIC, seeds=(0, 1, 2))
    effect = effects([*bare, *defended])["knockoff", "soft"]
    assert effect.n_seeds == 2
    expected = hits([defended[0], defended[2]]).mean() - hits([bare[1], bare[0]]).mean()
    assert effect.value is not None
    assert effect.value.mean == pytest.approx(expected)


def test_of_attackers_that_differ_by_rounding_alone_the_first_is_the_best() -> None:
    first, second = thieves(0.5), thieves(0.5, attack="random")
    for record, rate in zip(second, (0.1 + 0.2, 0.3, 0.3), strict=True):
        record["metrics"] = dict.fromkeys(record["metrics"], rate)
    for record in first:
        record["metrics"] = dict.fromkeys(record["metrics"], 0.3)
    best = [c for c in compare_cells([*first, *second], ["standard"]) if c.kind == "best_attacker"]
    assert {c.attack for c in best} == {"knockoff"}


def test_a_difference_of_two_runs_is_a_bootstrap_where_both_kept_the_images() -> None:
    before, after = thieves(0.5), thieves(0.6)
    assert paired_difference("thief_accuracy", after, before) == paired_bootstrap(
        hits(after), hits(before), np.subtract
    )
    without = thieves(0.5, samples=False)
    seeds = [
        a["metrics"]["thief_accuracy"] - b["metrics"]["thief_accuracy"] for a, b in zip(after, without, strict=True)
    ]  # type: ignore[operator]
    assert paired_difference("thief_accuracy", after, without) == mean_interval(seeds, (-1.0, 1.0))
