"""The DivQAT study runs, resumes where it stopped, and keeps auxiliary images and attacker's pools apart."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import numpy as np
import pytest

from evaluations.studies.divqat import benchmark, run, settings, tables
from evaluations.studies.divqat.settings import AUXILIARIES, MAIN_POOL, STUDIES, VARIANTS, cells_of


def fake_records(victim, cells, size, root):
    return [
        dict(zip(run.KEY, run.key_of(cell, size), strict=True)) | {"victim_accuracy": 0.9, "thief_accuracy": 0.1}
        for cell in cells
    ]


def test_resumes_and_ignores_a_line_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    trained = []

    def fake(victim, cells, size, root):
        trained.append(victim)
        return fake_records(victim, cells, size, root)

    monkeypatch.setattr(run, "run_cells", fake)
    output = tmp_path / "cells.jsonl"
    command = ["--data-root", str(tmp_path), "--studies", "variants", "--seeds", "0", "--output", str(output)]
    run.main([*command, "--only", "qat"])
    assert len(trained) == 1
    output.write_text(output.read_text() + '{"study": "vari', encoding="utf-8")
    run.main(command)
    assert len(trained) == len(VARIANTS)
    run.main(command)
    assert len(trained) == len(VARIANTS)
    assert "0 cells" in capsys.readouterr().out


def test_cells_are_distinct_and_the_pool_of_the_variants_table_is_not_auxiliary() -> None:
    for dataset in AUXILIARIES:
        cells = [cell for study in STUDIES for cell in cells_of(study, dataset, 0)]
        assert len(set(cells)) == len(cells)
        for cell in cells_of("variants", dataset, 0):
            assert cell.pool == MAIN_POOL[dataset]
            assert cell.victim.auxiliary in ("none", "default")


@pytest.mark.data
@pytest.mark.slow
def test_a_quick_cell_is_deterministic(data_root: Path, tmp_path: Path) -> None:
    lines = []
    for name in ("a.jsonl", "b.jsonl"):
        arguments = ["--data-root", str(data_root), "--size", "quick", "--seeds", "0", "--output", str(tmp_path / name)]
        run.main([*arguments, "--studies", "in-distribution", "--only", "divqat"])
        records = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        lines.append([{k: v for k, v in record.items() if not k.endswith("seconds")} for record in records])
    assert len(lines[0]) == 3
    assert lines[0] == lines[1]


def test_committed_records_make_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    for module in (settings, tables):
        results = doctest.testmod(module)
        assert results.attempted > 0
        assert results.failed == 0
    assert tables.main([]) == 0
    printed = capsys.readouterr().out
    for heading in ("### mnist, matrix (compact)", "### fashion_mnist, amplified (compact)"):
        assert heading in printed
    for row in (
        "| default | fashion_mnist | .976",
        "| mixture+cifar10 | fashion_mnist | .977",
        "| cifar10 | fashion_mnist | .976",
    ):
        assert row in printed, "one-pool.md has this table"


def test_benchmark_compares_what_it_says() -> None:
    result = benchmark.size_and_speed("lenet5", (1, 8, 8), images=64, batch=32, rounds=1)
    assert result["size_ratio"] == pytest.approx(result["int8_bytes"] / result["fp32_bytes"])
    assert result["speedup"] == pytest.approx(result["fp32_ms_per_image"] / result["int8_ms_per_image"])
    assert benchmark.step_cost("lenet5", (1, 8, 8), images=160, batch=32, rounds=1)["ratio"] > 0
    assert np.isfinite(result["speedup"])
    assert result["speedup_range"] == [result["speedup"]] * 2
    calls: list[str] = []

    def side(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    pairs = benchmark.alternate(lambda: side("a"), lambda: side("b"), 2)
    assert "".join(calls) == "ababab"
    assert pairs == [(3, 4), (5, 6)]
    assert benchmark.ratio("gain", [3.0, 1.0, 2.0]) == {"gain": 2.0, "gain_range": [1.0, 3.0]}
