"""The time left is the measured pace, and --verbose says each step once, on stderr."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from art_divqat.audit.progress import Silent
from art_divqat.cli.progress import Lines, TimeLeft, show_log, watch


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def quiet_logger() -> Iterator[logging.Logger]:
    """The package's logger as it was, whatever a test does to it."""
    logger = logging.getLogger("art_divqat")
    handlers, level = list(logger.handlers), logger.level
    logger.handlers.clear()
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.mark.parametrize("already", [0.0, 500.0])
def test_a_steady_run_is_told_right_from_the_first_piece_on(already: float) -> None:
    """Pieces of very different weight, minutes apart, where a pace over the last half minute knows nothing."""
    clock = Clock()
    left = TimeLeft(clock)
    clock.now += 90  # what is loaded before the work begins
    weights = [40.0, 10.0, 25.0, 100.0, 5.0, 60.0]
    left.planned(already + sum(weights), already)
    assert left.seconds() is None
    for number, weight in enumerate(weights):
        clock.now += 3 * weight
        left.finished(weight)
        assert left.seconds() == pytest.approx(3 * sum(weights[number + 1 :]))
    assert left.text() == ""


def test_two_side_by_side_are_not_told_by_the_first_alone() -> None:
    """A measured run of two workers: seconds, and the share of the work that was done then."""
    measured = [(230, 0.034), (234, 0.166), (282, 0.2), (351, 0.234), (367, 0.366), (449, 0.498), (712, 0.659)]
    measured += [(843, 0.756), (981, 0.85), (1114, 0.923), (1185, 0.976)]
    whole, before = 1214, 0.0
    clock = Clock()
    left = TimeLeft(clock)
    left.planned(1.0, 0.0)
    told = []
    for seconds, share in measured:
        clock.now = 100.0 + seconds
        left.finished(share - before)
        before = share
        if (about := left.seconds()) is not None:
            told.append(about / (whole - seconds))
    assert len(told) == len(measured) - 1
    assert all(0.5 < ratio < 2 for ratio in told)


def test_it_runs_down_between_pieces_and_never_below_zero() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    left.planned(4.0, 0.0)
    clock.now += 60
    left.finished(1.0)
    assert left.text() == "about 3 min left"
    clock.now += 100
    assert left.seconds() == 80
    clock.now += 1000
    assert left.seconds() == 0


def test_more_that_is_planned_later_is_counted() -> None:
    """As with seeds: auto, which plans the next seeds when the first are done."""
    clock = Clock()
    left = TimeLeft(clock)
    left.planned(2.0, 0.0)
    for _ in range(2):
        clock.now += 10
        left.finished(1.0)
    left.planned(6.0, 2.0)
    assert left.seconds() == 40
    clock.now += 7200
    left.planned(30.0, 2.0)
    assert left.text().endswith("h left")


def test_lines_say_each_step_once(quiet_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    assert show_log(True)
    assert show_log(True)
    with watch(quiet=False) as watcher:
        assert isinstance(watcher, Lines)
        watcher.planned(10.0, 5.0)
        for step in range(5):
            watcher.working("0", "training a thief", step, 5)
        watcher.finished("cell a", 2.5)
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert [line.split(" ", 1)[1] for line in lines[:1]] == ["training a thief"]
    assert "done: cell a; 75 %, about" in lines[1]
    assert len(lines) == 2


def test_without_verbose_nothing_is_logged(quiet_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    quiet_logger.setLevel(logging.WARNING)
    assert show_log(False) is False
    with watch(quiet=True) as watcher:
        assert isinstance(watcher, Silent)
        watcher.finished("cell a", 1.0)
    with watch(quiet=False) as watcher:
        watcher.planned(2.0, 0.0)
        watcher.working("0", "training", 1, 2)
        watcher.finished("cell a", 1.0)
    assert "cell a" not in capsys.readouterr().err
