"""Comparisons of groups of cells: what is paired with what, and by which interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from support.builders import read_cell

from art_divqat.metrics.estimator import differences, over_seeds
from art_divqat.plan.cells import Cell
from art_divqat.results.comparisons import compare_cells, paired_difference
from art_divqat.results.effects import Contrast, compare_contrasts
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
        (expected,) = differences(np.stack([[hits(records), hits(bare)]]))
        value = found[attack, "soft"].value
        assert value is not None
        assert (value.mean, value.low, value.high) == pytest.approx(tuple(expected[:3]))
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


def test_a_difference_of_two_runs_is_of_seeds_and_images_where_both_kept_these() -> None:
    before, after = thieves(0.5), thieves(0.6)
    assert [paired_difference("thief_accuracy", after, before)] == differences(np.stack([[hits(after), hits(before)]]))
    without = thieves(0.5, samples=False)
    seeds = [
        a["metrics"]["thief_accuracy"] - b["metrics"]["thief_accuracy"] for a, b in zip(after, without, strict=True)
    ]  # type: ignore[operator]
    assert paired_difference("thief_accuracy", after, without) == over_seeds(seeds, (-1.0, 1.0))


def test_comparisons_of_one_kind_and_metric_are_judged_together() -> None:
    """An effect that is told when it is alone cannot be told among many that are none."""

    def effect_of(attacks: int) -> Comparison:
        records = []
        for number in range(attacks):
            for defence in ("none", HEURISTIC):
                rate = 0.5 if defence == "none" or number else 0.35
                hits = rng.random((3, 300)) < rate
                records += [
                    _record(f"jbda:nb_seeds={number + 10}", defence, seed, row) for seed, row in enumerate(hits)
                ]
        return effects(records)["jbda:nb_seeds=10", "soft"]

    for attacks, verdict in ((1, "lower"), (40, "cannot tell")):
        rng = np.random.default_rng(0)
        effect = effect_of(attacks)
        assert effect.value is not None
        assert effect.value.high is not None
        assert effect.value.high < 0, "the interval is that of one comparison"
        assert effect.verdict == verdict


def test_the_same_comparison_in_many_rows_is_one_test() -> None:
    """Two victims are compared in the rows of every attacker: more attackers make their verdict no weaker."""
    rng = np.random.default_rng(0)
    own = {"standard": rng.random((3, 300)) < 0.9, "robust:epsilon=0.2": rng.random((3, 300)) < 0.75}
    records = []
    for victim, sets in own.items():
        for number in range(40):
            for seed, row in enumerate(sets):
                record = _record(f"jbda:nb_seeds={number + 10}", "none", seed, rng.random(300) < 0.5, victim)
                record["metrics"]["victim_accuracy"] = float(row.mean())
                record["samples"]["victim_correct"] = pack(row)
                records.append(record)
    found = [c for c in compare_cells(records, list(own)) if c.metric == "victim_accuracy"]
    assert len(found) == 40
    assert {c.verdict for c in found} == {"lower"}


def test_the_best_attacker_is_measured_where_it_was_not_chosen() -> None:
    """Of thieves that are equally good the largest mean is above the truth; what is reported is not."""
    rng = np.random.default_rng(0)
    largest, reported = [], []
    for _ in range(60):
        sets = rng.random((12, 2, 100)) < 0.5
        records = [
            _record(f"jbda:nb_seeds={number + 10}", "none", seed, row)
            for number, seeds in enumerate(sets)
            for seed, row in enumerate(seeds)
        ]
        best = [c for c in compare_cells(records, ["standard"]) if c.kind == "best_attacker"]
        assert all(c.value is not None and c.value.low < c.value.mean < c.value.high for c in best)
        assert {c.attack for c in best} == {f"jbda:nb_seeds={sets.mean(axis=(1, 2)).argmax() + 10}"}
        largest.append(sets.mean(axis=(1, 2)).max())
        reported.append(best[0].value.mean)
    assert np.mean(largest) > 0.54
    assert np.mean(reported) == pytest.approx(0.5, abs=0.015)


def _record(attack: str, defence: str, seed: int, hits: np.ndarray, victim: str = "standard") -> CellRecord:
    rates = dict.fromkeys(("thief_accuracy", "agreement", "agreement_clean"), float(hits.mean()))
    packed = {name: pack(hits) for name in ("thief_correct", "agrees", "agrees_clean")}
    cell = Cell("digits", victim, defence, attack, "soft", 100, seed)
    return cell_record(cell, queries=100, metrics=rates, samples=packed, seconds=1.0)


def contrast(shift: float, *, seed: int, budget: int = 100, epsilon: float | None = None) -> Contrast:
    draws = np.random.default_rng(seed).random((3, 200))
    sets = [tuple(pack(row < rate) for row in draws) for rate in (0.5 + shift, 0.5)]
    return Contrast("difference", "agreement", {"budget": budget, "epsilon": epsilon}, family="agrees", sets=sets)


def verdicts(contrasts: Sequence[Contrast], level: float = 0.05) -> list[str]:
    return [fields["verdict"] for fields in compare_contrasts(contrasts, level)]


@pytest.mark.parametrize("where", [{"budget": 50}, {"epsilon": 0.1}], ids=str)
def test_smaller_budgets_and_single_radii_do_not_weaken_the_primary_comparisons(where: dict[str, float]) -> None:
    primary = [contrast(0.03, seed=0)]
    (alone,) = verdicts(primary)
    assert alone == "higher"
    others = [contrast(0.0, seed=n, **where) for n in range(1, 40)]
    assert verdicts([*others, *primary])[-1] == "higher"
    # of one family they do: these are at the largest budget too
    together = [contrast(0.01 if n % 2 else -0.01, seed=n) for n in range(1, 40)]
    assert verdicts([*together, *primary])[-1] == verdicts(primary, 0.05 / 40)[0] == "cannot tell"


def test_what_cannot_be_told_says_how_many_seeds_would_tell() -> None:
    told, untold = compare_contrasts([contrast(0.2, seed=0), contrast(0.01, seed=1)])
    assert (told["verdict"], told["seeds_needed"]) == ("higher", None)
    assert untold["verdict"] == "cannot tell"
    assert untold["seeds_needed"] > 3
    (stricter,) = compare_contrasts([contrast(0.01, seed=1)], 0.01)
    assert stricter["seeds_needed"] >= untold["seeds_needed"]
