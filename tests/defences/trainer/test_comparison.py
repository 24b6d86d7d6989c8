"""The comparison of an int8 network with its teacher: the paired interval, and a warning where accuracy was lost."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from art.data_generators import NumpyDataGenerator
from scipy import stats
from support.trainer_helpers import SHAPE

from art_divqat._rng import isolated_random_state
from art_divqat.data.auxiliary import default_auxiliary
from art_divqat.defences.trainer import DivQATTrainer, PGDAdversary, QATTrainer, select_alpha
from art_divqat.defences.trainer.comparison import AccuracyComparison, compare_accuracy
from art_divqat.errors import AccuracyLossWarning, UserError
from art_divqat.metrics.intervals import Interval


def answering(top: np.ndarray):
    """A network that gives the images, by their first pixel, these classes."""
    rows = torch.eye(3)[torch.from_numpy(top)]
    return lambda x: rows[x[:, 0, 0, 0].long()]


@pytest.mark.parametrize(("count", "lost", "won"), [(300, 22, 6), (1200, 5, 40), (50, 10, 0), (40, 0, 0)])
def test_the_interval_is_that_of_paired_differences(count: int, lost: int, won: int) -> None:
    labels = np.zeros(count, np.int64)
    teacher, int8 = labels.copy(), labels.copy()
    int8[:lost] = 1
    teacher[lost : lost + won] = 2
    images = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1)
    found = compare_accuracy(answering(teacher), answering(int8), images, torch.from_numpy(labels))
    pairs = (teacher == 0).astype(float) - (int8 == 0)
    half = stats.t.ppf(0.975, count - 1) * pairs.std(ddof=1) / np.sqrt(count)
    assert found.lost.mean == pytest.approx((lost - won) / count)
    assert found.lost.low == pytest.approx(pairs.mean() - half, abs=1e-6)
    assert found.lost.high == pytest.approx(pairs.mean() + half, abs=1e-6)
    assert (found.teacher, found.quantized) == (pytest.approx(1 - won / count), pytest.approx(1 - lost / count))


def test_many_images_are_thinned_out_evenly_and_one_says_nothing() -> None:
    count = 25_000
    top = np.zeros(count, np.int64)
    images = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1)
    found = compare_accuracy(answering(top), answering(top), images, torch.from_numpy(top))
    assert found.images == 8334
    alone = compare_accuracy(answering(top), answering(top + 1), images[:1], torch.from_numpy(top[:1]))
    assert alone.lost == (1.0, -1.0, 1.0)
    assert not alone.exceeds(0.02)


@pytest.mark.parametrize(
    ("lost", "low", "tolerance", "past"),
    [(0.05, 0.01, 0.02, True), (0.05, -0.01, 0.02, False), (0.02, 0.01, 0.02, False), (0.05, 0.01, 0.06, False)],
)
def test_past_the_tolerance_and_not_by_chance(lost: float, low: float, tolerance: float, past: bool) -> None:
    found = AccuracyComparison(0.9, 0.9 - lost, Interval(lost, low, 0.2), 100, "validation images")
    assert found.exceeds(tolerance) is past


def costly(teacher, **options) -> DivQATTrainer:
    """A trainer whose auxiliary images count far too much."""
    images = default_auxiliary(SHAPE, 200, seed=1, families=("strokes", "glyphs"))
    return DivQATTrainer(teacher, auxiliary=images, alpha_auxiliary=20.0, auxiliary_mixture=False, **options)


def test_a_costly_divqat_warns_once_and_names_the_remedy(digits, teacher) -> None:
    x, y = digits
    trainer = costly(teacher)
    with pytest.warns(AccuracyLossWarning) as caught:
        trainer.fit(x[:300], y[:300], (x[1000:1400], y[1000:1400]), nb_epochs=2)
    (warning,) = [each for each in caught if issubclass(each.category, AccuracyLossWarning)]
    message = str(warning.message)
    assert "\n" not in message
    for words in ("DivQATTrainer", "400 validation images", "select_alpha", "alpha_auxiliary", "epochs", "0.02"):
        assert words in message
    assert warning.filename == __file__
    found = trainer.comparison
    served = trainer.predict(x[1000:1400]).argmax(1) == y[1000:1400]
    assert found.quantized == pytest.approx(served.mean())
    assert found.teacher == pytest.approx(np.mean(teacher.predict(x[1000:1400]).argmax(1) == y[1000:1400]))
    assert found.lost.mean == pytest.approx(found.teacher - found.quantized)
    assert 0.02 < found.lost.low < found.lost.mean < found.lost.high
    assert [record.comparison for record in trainer.history] == [None, found]


def test_adversarial_examples_are_named_as_what_cost_accuracy(digits, teacher) -> None:
    x, y = digits
    trainer = QATTrainer(teacher, adversary=PGDAdversary(eps=0.5, steps=2))
    with pytest.warns(AccuracyLossWarning, match="Adversarial examples cost accuracy"):
        trainer.fit(x[:300], y[:300], (x[1000:1400], y[1000:1400]), nb_epochs=2)


def test_no_warning_without_a_loss_or_a_tolerance(digits, teacher) -> None:
    x, y = digits
    with warnings.catch_warnings():
        warnings.simplefilter("error", AccuracyLossWarning)
        plain = QATTrainer(teacher)
        plain.fit(x[:1000], y[:1000], (x[1000:1400], y[1000:1400]), nb_epochs=2)
        assert plain.comparison.lost.low <= 0.02
        for tolerance in (None, 0.95):
            trainer = costly(teacher, tolerance=tolerance)
            trainer.fit(x[:300], y[:300], (x[1000:1400], y[1000:1400]), nb_epochs=2)
            assert trainer.comparison.lost.mean > 0.02
        chosen = select_alpha(
            teacher,
            x[:200],
            y[:200],
            (x[1000:1200], y[1000:1200]),
            1 - x[:50],
            candidates=[(0.0, 20.0)],
            fit_options={"nb_epochs": 1},
            auxiliary=x[200:300],
            auxiliary_mixture=False,
        )
    assert len(chosen.candidates) == 2


def test_without_validation_images_the_training_images_are_compared(digits, lenet_teacher) -> None:
    x, y = digits
    trainer = QATTrainer(lenet_teacher, tolerance=None)
    one_hot = np.eye(10, dtype=np.float32)[y]
    trainer.fit(x[:300], one_hot[:300], nb_epochs=1)
    assert (trainer.comparison.images, trainer.comparison.source) == (300, "training images")
    assert trainer.comparison.quantized == pytest.approx(np.mean(trainer.predict(x[:300]).argmax(1) == y[:300]))
    with isolated_random_state("generator"):
        generator = NumpyDataGenerator(x[:300], one_hot[:300], batch_size=50)
        trainer.fit_generator(generator, nb_epochs=1)
    assert (trainer.comparison.images, trainer.comparison.source) == (50, "training images")


def test_the_tolerance_is_a_fraction(teacher) -> None:
    for tolerance in (-0.1, 1, "0.02"):
        with pytest.raises(UserError, match="tolerance"):
            DivQATTrainer(teacher, tolerance=tolerance)
