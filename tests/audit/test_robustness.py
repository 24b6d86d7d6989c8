"""Robustness in a run: curves at the largest budget, consistent with the single figures, kept with the victim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.builders import read_cell

from art_divqat.api import evaluate, prepare
from art_divqat.audit import robustness
from art_divqat.audit.bench import Bench
from art_divqat.errors import UserError
from art_divqat.plan.config import make_config
from art_divqat.plan.presets import resolve
from art_divqat.results.build import read_results
from art_divqat.results.comparisons import compare_cells
from art_divqat.results.journal import Journal, cell_record
from art_divqat.results.probes import is_probe
from art_divqat.results.samples import curve_sample, pack, unpack
from art_divqat.results.schema import Results
from art_divqat.victims.specs import VictimSpec

RADII = (0.0, 0.05, 0.2, 0.3)
OPTIONS: dict[str, Any] = {
    "limit": 150,
    "victims": ["robust"],
    "budgets": [30, 60],
    "attacks": ["knockoff"],
    "answers": ["soft"],
    "seeds": 2,
    "victim_recipe": {"epochs": 8},
    "thief_recipe": {"epochs": 5},
    "evasion": {"images": 40, "steps": 4, "epsilons": RADII},
    "jobs": 1,
    "query_pool": "in-distribution",
    "model": "lenet5",
}
CURVES = {"victim_robust_accuracy", "thief_robust_accuracy", "transfer_robust_accuracy"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, store: Path) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("runs") / "curves"
    return folder, evaluate(prepare(make_config(OPTIONS)), folder, store=store)


def test_the_largest_budget_has_curves_and_no_other(run: tuple[Path, Results]) -> None:
    for cell in run[1].cells:
        assert set(cell.curves) == (CURVES if cell.budget == 60 else set())
        for curve in cell.curves.values():
            assert tuple(point.epsilon for point in curve) == RADII


def test_curves_agree_with_the_single_figures(run: tuple[Path, Results]) -> None:
    _, results = run
    for cell in (cell for cell in results.cells if cell.curves):
        at = {name: {p.epsilon: p.value for p in curve} for name, curve in cell.curves.items()}
        for name in ("victim_robust_accuracy", "thief_robust_accuracy"):
            rates = list(at[name].values())
            assert rates == sorted(rates, reverse=True), "nested: what is fooled stays fooled"
            assert at[name][0.2] <= (cell.metrics[name] or 0.0)
        assert at["transfer_robust_accuracy"][0.2] == cell.metrics["transfer_robust_accuracy"]
        assert at["transfer_robust_accuracy"][0.0] == at["thief_robust_accuracy"][0.0]
    assert any(c.curves["victim_robust_accuracy"][0].value > c.curves["victim_robust_accuracy"][-1].value
               for c in results.cells if c.curves)  # fmt: skip


def test_the_journal_holds_a_bit_for_every_image_of_every_point(run: tuple[Path, Results]) -> None:
    _, lines = Journal(run[0] / "journal.jsonl").read()
    for line in lines:
        for name, curve in line.get("curves", {}).items():
            for point in curve:
                hits = unpack(line["samples"][curve_sample(name, point["epsilon"])])
                assert len(hits) == 40
                assert hits.mean() == point["value"]
        for name in CURVES:
            assert unpack(line["samples"][name]).mean() == line["metrics"][name]


def test_the_summary_has_an_interval_over_the_seeds_for_every_point(run: tuple[Path, Results]) -> None:
    _, results = run
    rows = [row for row in results.summary if row.budget == 60 and row.victim == "standard"]
    # a linear probe that did better than the thief has a row of its own, and no robustness
    (row,) = (row for row in rows if not is_probe(row.attack))
    cells = [cell for cell in results.cells if cell.budget == 60 and cell.victim == "standard"]
    for name in CURVES:
        for number, point in enumerate(row.curves[name]):
            assert point.mean == pytest.approx(np.mean([cell.curves[name][number].value for cell in cells]))
            assert point.low is not None
            assert point.high is not None
            assert 0 <= point.low <= point.mean <= point.high <= 1
    assert all(not row.curves for row in results.summary if row.budget == 30)


def test_differences_of_curves_are_paired_and_told_at_each_radius_and_over_all(run: tuple[Path, Results]) -> None:
    _, results = run
    found = [c for c in results.comparisons if c.kind == "curve_difference"]
    assert {c.metric for c in found} == {"thief_robust_accuracy", "transfer_robust_accuracy"}
    for metric in ("thief_robust_accuracy", "transfer_robust_accuracy"):
        by_radius = {c.epsilon: c.value for c in found if c.metric == metric}
        assert set(by_radius) == {0.05, 0.2, 0.3, None}
        whole, parts = by_radius.pop(None), [value.mean for value in by_radius.values() if value is not None]
        assert whole is not None
        assert whole.mean == pytest.approx(np.mean(parts))
        assert whole.low is not None
        assert whole.high is not None
        assert whole.low <= whole.mean <= whole.high


def test_robust_differences_are_of_seeds_and_images_where_the_journal_has_these() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.random((2, 3, 400)) < np.array([0.6, 0.5])[:, None, None]
    lines = []
    for victim, hits in (("robust:epsilon=0.2", ours), ("standard", theirs)):
        for seed, row in enumerate(hits):
            cell = read_cell("d", victim, "none", "knockoff", "soft", 9, seed)
            packed = {name: pack(row) for name in ("thief_correct", "agrees", "agrees_clean")}
            rates = dict.fromkeys(("thief_accuracy", "agreement", "agreement_clean"), 0.5)
            metrics = rates | {"thief_robust_accuracy": float(row.mean())}
            packed["thief_robust_accuracy"] = pack(row)
            lines.append(cell_record(cell, queries=9, metrics=metrics, samples=packed, seconds=1.0))

    def difference() -> Any:
        (found,) = [c for c in compare_cells(lines, ["standard", "robust:epsilon=0.2"]) if c.kind == "difference"]
        return found.value

    paired = difference()
    error = np.sqrt(2 * 0.25 / 1200)
    assert paired.mean == pytest.approx(ours.mean() - theirs.mean())
    assert paired.high - paired.low == pytest.approx(2 * 1.96 * error, rel=0.35)
    for line in lines:
        del line["samples"]["thief_robust_accuracy"]
    assert difference().mean == pytest.approx(paired.mean), "an earlier journal has an interval over the seeds"
    assert difference() != paired


def test_a_journal_without_curves_reads_as_before(run: tuple[Path, Results], tmp_path: Path) -> None:
    header, lines = Journal(run[0] / "journal.jsonl").read()
    header = json.loads(json.dumps(header))
    del header["config"]["evasion"]["epsilons"]
    old = Journal(tmp_path / "journal.jsonl")
    old.start(header)
    for line in lines:
        kept = {name: bits for name, bits in line["samples"].items() if "correct" in name or "agrees" in name}
        old.append({**{key: value for key, value in line.items() if key != "curves"}, "samples": kept})
    results = read_results(tmp_path)
    assert len(results.cells) == len(lines)
    assert not any(cell.curves for cell in results.cells)
    assert not any(c.kind == "curve_difference" for c in results.comparisons)


def test_a_victim_is_measured_once_and_its_curve_kept(
    run: tuple[Path, Results], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(robustness, "_gradient_masking_checks", lambda *given: calls.append(given))
    again = evaluate(prepare(make_config(OPTIONS)), tmp_path / "again", store=store)
    assert calls == []
    assert [cell.curves for cell in again.cells] == [cell.curves for cell in run[1].cells]
    assert [cell.details for cell in again.cells] == [cell.details for cell in run[1].cells]


def test_no_radii_measure_no_curve(store: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "evasion": {"images": 40, "steps": 4, "epsilons": []}, "seeds": 1, "victims": ["standard"]}
    results = evaluate(prepare(make_config(options)), tmp_path / "none", store=store)
    assert not any(cell.curves for cell in results.cells)
    assert all("robust_accuracy_large_epsilon" in cell.details for cell in results.cells)


def test_an_int8_victim_is_attacked_through_its_twin_and_its_parent(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = resolve(
        make_config({**OPTIONS, "victims": ["ptq"], "device": "cpu", "evasion": {"images": 20, "steps": 2}})
    )
    bench = Bench(resolved, store)
    attacked: list[str] = []
    craft = robustness.craft

    def watched(target: Any, *given: Any, **settings: Any) -> Any:
        attacked.append(type(target).__name__)
        return craft(target, *given, **settings)

    monkeypatch.setattr(robustness, "craft", watched)
    found = robustness.Robustness(bench).of_victim(VictimSpec("ptq"), 0)
    assert found is not None
    assert attacked[:2] == ["QuantizedPyTorchClassifier", "RecipeClassifier"]
    assert list(found.right) == [0.0, 0.05, 0.1, 0.2, 0.4]
    assert not np.diff(found.robust_mask.astype(int), axis=0).max() > 0


@pytest.mark.parametrize(
    ("epsilons", "said"),
    [
        ([0.1, 8], "units of [0, 1] pixels (8 of 255 is 0.0314), got 8"),
        ([0.2, 0.1], "expected ascending radii, each once, got 0.2,0.1"),
        ([0.1, 0.1], "each once"),
    ],
)
def test_radii_in_grey_levels_or_out_of_order_are_refused(epsilons: list[float], said: str) -> None:
    with pytest.raises(UserError) as error:
        make_config({"evasion": {"epsilons": epsilons}})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_presets_choose_radii() -> None:
    quick = resolve(make_config({})).evasion.epsilons
    paper = resolve(make_config({"preset": "paper", "dataset": "cifar10"})).evasion.epsilons
    assert quick == (0.0, 0.05, 0.1, 0.2, 0.4)
    assert paper is not None
    assert {0.0, 0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 8 / 255} == set(paper)


def test_autoattack_on_three_classes_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    y = np.arange(120) % 3
    x = np.broadcast_to((y / 4)[:, None, None, None], (120, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "three.npz", x_train=x, y_train=y, x_test=x[:30], y_test=y[:30])
    options = {**OPTIONS, "dataset": f"npz:{tmp_path / 'three.npz'}", "evasion": {"images": 9, "autoattack": True}}
    with pytest.raises(UserError) as error:
        evaluate(prepare(make_config({**options, "limit": None})), tmp_path / "run", store=tmp_path / "store")
    assert "APGD-CE, FAB-T and Square apply; leave evasion.autoattack out" in str(error.value)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "store").exists()


def test_a_victims_radius_in_grey_levels_is_refused_with_the_unit() -> None:
    with pytest.raises(UserError, match=r"images are in \[0, 1\]; for 8 of 255 grey levels write 8 / 255"):
        resolve(make_config({"victims": ["robust:epsilon=8"]}))


@pytest.mark.parametrize("victim_rate", [1.0, 0.8])
def test_extraction_ratios_are_compared_with_the_accuracy_of_both_victims(victim_rate: float) -> None:
    rng = np.random.default_rng(1)
    right = {name: rng.random((3, 500)) < rate for name, rate in (("robust:epsilon=0.2", 0.7), ("standard", 0.6))}
    victims = {name: rng.random((3, 500)) < victim_rate for name in right}
    lines = [
        cell_record(
            read_cell("d", name, "none", "knockoff", "soft", 9, seed),
            queries=9,
            metrics={
                "thief_accuracy": float(row.mean()), "agreement": 0.5, "agreement_clean": 0.5,
                "victim_accuracy": float(victims[name][seed].mean()),
            },
            samples={
                "thief_correct": pack(row), "agrees": pack(row), "agrees_clean": pack(row),
                "victim_correct": pack(victims[name][seed]),
            },
            seconds=1.0,
        )
        for name, hits in right.items()
        for seed, row in enumerate(hits)
    ]  # fmt: skip
    found = {(c.kind, c.metric): c.value for c in compare_cells(lines, list(right)) if c.kind != "best_attacker"}
    ratio, thief = found["ratio", "extraction_ratio"], found["ratio", "thief_accuracy"]
    assert ratio is not None
    assert thief is not None
    (ours, theirs), (own, other) = ([each.mean() for each in of.values()] for of in (right, victims))
    assert ratio.mean == pytest.approx((ours / own) / (theirs / other))
    assert ratio.low < ratio.mean < ratio.high
    if victim_rate == 1:
        assert ratio == thief
    else:
        assert ratio.high - ratio.low > thief.high - thief.low, "two more rates, and more to be unsure of"
    assert found["difference", "victim_accuracy"].mean == pytest.approx(own - other)
