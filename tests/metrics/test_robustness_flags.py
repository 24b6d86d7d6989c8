"""Flags on measured robustness: raised beyond chance, silent within it, and every one says what to do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from art_divqat.errors import UserError
from art_divqat.metrics import robustness_flags as flags

rates = st.floats(0, 1)


@given(white=rates, black=rates, images=st.integers(1, 10_000))
def test_black_box_flag_only_where_it_is_stronger(white: float, black: float, images: int) -> None:
    flag = flags.black_box_beats_white_box(white, black, images)
    if black >= white:
        assert flag is None
    if flag is not None:
        assert flags.black_box_beats_white_box(white, black, images * 4) is not None, "more images, more certainty"


def test_chance_is_not_flagged() -> None:
    assert flags.black_box_beats_white_box(0.5, 0.45, images=50) is None
    assert flags.black_box_beats_white_box(0.5, 0.45, images=5000) is not None


@given(curve=st.dictionaries(rates, rates, max_size=6))
def test_falling_curves_are_never_flagged(curve: dict[float, float]) -> None:
    falling = dict(zip(sorted(curve), sorted(curve.values(), reverse=True), strict=True))
    assert flags.accuracy_rises_with_epsilon(falling, 100) is None
    if falling:
        assert flags.large_epsilon_survived({**falling, 1.0: 0.0}, 10) is None


def test_curves_that_should_raise() -> None:
    assert flags.accuracy_rises_with_epsilon({0.0: 0.9, 0.1: 0.2, 0.3: 0.6}, 100) is not None
    assert flags.large_epsilon_survived({0.5: 0.11}, 10) is not None
    assert flags.large_epsilon_survived({0.5: 0.11}, 5) is None
    assert flags.large_epsilon_survived({0.3: 0.9}, 10) is None


def test_every_flag_says_all_four_things() -> None:
    raised = [
        flags.black_box_beats_white_box(0.9, 0.1, 100),
        flags.large_epsilon_survived({0.5: 0.9}, 10),
        flags.accuracy_rises_with_epsilon({0.1: 0.1, 0.2: 0.9}, 100),
        flags.zero_gradients(0.5),
        flags.more_steps_matter(0.9, 0.1, 10, 100),
        flags.postprocessor_seen(True, True),
        flags.postprocessor_seen(True, False),
    ]
    names = set()
    for flag in raised:
        assert flag is not None
        assert set(flag.as_dict()) == {"name", "raised_because", "meaning", "remedy"}
        assert all(flag.as_dict().values())
        names.add(flag.name)
    assert len(names) == len(raised)


def test_bad_input() -> None:
    for call in (
        lambda: flags.black_box_beats_white_box(1.2, 0.1, 100),
        lambda: flags.black_box_beats_white_box(0.2, 0.1, 0),
        lambda: flags.zero_gradients(float("nan")),
        lambda: flags.more_steps_matter(0.5, 0.4, 20, 20),
        lambda: flags.large_epsilon_survived({0.5: 50}, 10),
    ):
        with pytest.raises(UserError):
            call()
