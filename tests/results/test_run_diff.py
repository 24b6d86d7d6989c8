"""Two runs compared: what is paired, what is said of it, what is refused; and files that somebody damaged."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from art_divqat.errors import UserError
from art_divqat.plan.config import make_config
from art_divqat.plan.presets import resolve
from art_divqat.results.journal import Journal
from art_divqat.results.run_diff import compare_runs
from art_divqat.results.samples import pack


def write(
    folder: Path,
    rate: float,
    *,
    victim: str = "standard",
    checksum: str = "c",
    budget: int = 10,
    control: bool = False,
) -> Path:
    """A run of three seeds whose thief agrees with the victim, and with a control, on a part of 400 images."""
    folder.mkdir()
    journal = Journal(folder / "journal.jsonl")
    journal.start({"config": {"control": True} if control else {}, "data": {"dataset": {"checksum": checksum}}})
    for name, seed in itertools.product([victim, *(["standard"] if control else [])], range(3)):
        hits = np.random.default_rng(seed).permutation(400) < rate * 400
        cell = {"dataset": "d", "victim": name, "defence": "none", "attack": "knockoff", "answers": "soft"}
        metrics = {"agreement": rate, "thief_accuracy": rate, "victim_accuracy": 0.9}
        journal.append(
            {
                "cell": {**cell, "budget": budget, "seed": seed},
                "metrics": metrics,
                "samples": {"agrees": pack(hits), "thief_correct": pack(hits)},
            }
        )
    return folder


@pytest.mark.parametrize(("after", "verdict"), [(0.8, "worse"), (0.4, "better"), (0.6, "cannot tell")])
def test_the_direction_is_the_owners(tmp_path: Path, after: float, verdict: str) -> None:
    found = compare_runs(write(tmp_path / "a", 0.6), write(tmp_path / "b", after))
    changes = {change.metric: change for change in found.changes}
    assert changes["agreement"].verdict == changes["thief_accuracy"].verdict == verdict
    assert changes["victim_accuracy"].verdict == "cannot tell"
    assert changes["agreement"].difference.mean == pytest.approx(after - 0.6)
    assert found.got_worse == (verdict == "worse")


def test_ones_own_model_is_paired_with_its_next_version(tmp_path: Path) -> None:
    names = [f"external:name=m.pt,sha256=x{letter * 16}" for letter in "ab"]
    found = compare_runs(write(tmp_path / "a", 0.6, victim=names[0]), write(tmp_path / "b", 0.8, victim=names[1]))
    assert found.changes[0].victim == "external"
    assert (found.only_in_a, found.only_in_b) == (0, 0)


def test_the_control_is_no_victim(tmp_path: Path) -> None:
    name = "external:name=m.pt,sha256=xaaaaaaaaaaaaaaaa"
    runs = [write(tmp_path / f"{rate}", rate, victim=name, control=True) for rate in (0.6, 0.8)]
    found = compare_runs(*runs)
    assert {change.victim for change in found.changes} == {"external"}
    assert (found.only_in_a, found.only_in_b) == (0, 0)
    # without a control, or asked for by name, `standard` is a victim like any other
    alone = compare_runs(write(tmp_path / "c", 0.6), write(tmp_path / "d", 0.8))
    assert {change.victim for change in alone.changes} == {"standard"}


def test_what_cannot_be_paired(tmp_path: Path) -> None:
    first = write(tmp_path / "a", 0.5)
    with pytest.raises(UserError, match="different images"):
        compare_runs(first, write(tmp_path / "b", 0.5, checksum="other"))
    with pytest.raises(UserError, match="no cell in common"):
        compare_runs(first, write(tmp_path / "c", 0.5, budget=20))
    with pytest.raises(UserError, match="There is no journal"):
        compare_runs(first, tmp_path / "missing")


@settings(max_examples=100, deadline=None)
@given(draw=st.data())
def test_damaged_journals_are_refused_in_words(tmp_path_factory: pytest.TempPathFactory, draw: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    first = write(folder / "a", 0.5)
    content = bytearray((first / "journal.jsonl").read_bytes())
    for place in draw.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=5)):
        content[place] ^= draw.draw(st.integers(1, 255))
    (first / "journal.jsonl").write_bytes(bytes(content[: draw.draw(st.integers(0, len(content)))]))
    before = (first / "journal.jsonl").read_bytes()
    with contextlib.suppress(UserError):
        compare_runs(first, first)
    assert (first / "journal.jsonl").read_bytes() == before


_KEYS = [
    "victims",
    "external",
    "budgets",
    "attacks",
    "defences",
    "dataset",
    "mean",
    "epsilon",
    "seeds",
    "evasion",
    "model",
]
_VALUES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["file:x", "http://h"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["source", "std", "rate"]), inner),
    max_leaves=5,
)


@settings(max_examples=1000, deadline=None)
@given(values=st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=5), _VALUES, max_size=4))
def test_any_configuration_is_taken_or_refused_in_one_line(values: dict[str, Any]) -> None:
    try:
        resolve(make_config(values))
    except UserError as error:
        refusal = str(error)
    else:
        refusal = ""
    assert "\n" not in refusal
