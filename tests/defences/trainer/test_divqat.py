"""DivQAT: the objective against SciPy, the limits in which it is QAT, and that it does what it is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from support.trainer_helpers import SHAPE, fresh_classifier

from art_divqat._rng import derive_seed, isolated_random_state
from art_divqat.data.auxiliary import FAMILIES, default_auxiliary
from art_divqat.defences.trainer import DivQATTrainer, PGDAdversary, QATTrainer, select_alpha
from art_divqat.defences.trainer._loop import QATLoop
from art_divqat.defences.trainer.divqat_parameters import DIVERGENCES
from art_divqat.defences.trainer.objective import confidence, divergence, spread
from art_divqat.errors import UserError
from art_divqat.models import build_model

LOGITS = arrays(np.float64, (3, 5), elements=st.floats(-20, 20))
ANY_LOGITS = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(2, 12)), elements=st.floats(-30, 30))


def reference(p_logits: np.ndarray, q_logits: np.ndarray, kind: str, temperature: float) -> np.ndarray:
    p, q = softmax(p_logits / temperature, axis=1), softmax(q_logits / temperature, axis=1)
    if kind == "kl":
        return entropy(p, q, axis=1)
    if kind == "kl-reverse":
        return entropy(q, p, axis=1)
    return jensenshannon(p, q, axis=1) ** 2


def alone(teacher, auxiliary, **options) -> DivQATTrainer:
    """A trainer that sees these auxiliary images and no mixture."""
    return DivQATTrainer(teacher, auxiliary=auxiliary, auxiliary_mixture=False, **options)


def mean_size(logs: np.ndarray) -> float:
    """Mean over the rows of their standard deviation over the classes."""
    return float(logs.std(axis=1).mean())


@given(p=LOGITS, q=LOGITS, kind=st.sampled_from(DIVERGENCES), temperature=st.floats(0.5, 8))
@settings(max_examples=60, deadline=None)
def test_divergences_agree_with_scipy(p, q, kind: str, temperature: float) -> None:
    ours = float(divergence(torch.from_numpy(p), torch.from_numpy(q), kind, temperature))
    assert ours == pytest.approx(float(np.nan_to_num(reference(p, q, kind, temperature)).mean()), rel=1e-6, abs=1e-7)
    if kind == "js":
        assert ours <= np.log(2) + 1e-9


@given(p=LOGITS, q=LOGITS, cap=st.floats(0.01, 2))
@settings(max_examples=30, deadline=None)
def test_cap_bounds_every_row(p, q, cap: float) -> None:
    ours = float(divergence(torch.from_numpy(p), torch.from_numpy(q), "kl", 1.0, cap))
    expected = np.minimum(reference(p, q, "kl", 1.0), cap).mean()
    assert ours == pytest.approx(float(expected), rel=1e-6, abs=1e-7)


@given(logits=ANY_LOGITS, shift=st.floats(-20, 20))
@settings(max_examples=60, deadline=None)
def test_spread_is_that_of_centred_log_probabilities(logits, shift: float) -> None:
    """The reference goes by probabilities; nothing that is the same for a row or for a class counts."""
    logs = log_softmax(logits, axis=1)
    expected = mean_size(logs - logs.mean(axis=0))
    assert float(spread(torch.from_numpy(logits))) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    by_class = shift * np.arange(logits.shape[1])
    by_row = shift * np.arange(len(logits))[:, None]
    moved = spread(torch.from_numpy(logits + by_class + by_row))
    assert float(moved) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(logits=ANY_LOGITS, shift=st.floats(-20, 20))
@settings(max_examples=60, deadline=None)
def test_confidence_is_that_of_log_probabilities(logits, shift: float) -> None:
    expected = mean_size(log_softmax(logits, axis=1))
    by_row = shift * np.arange(len(logits))[:, None]
    assert float(confidence(torch.from_numpy(logits + by_row))) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_confidence_of_uniform_answers_is_zero_with_a_finite_gradient() -> None:
    logits = torch.full((3, 5), 7.0, requires_grad=True)
    loss = confidence(logits)
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_spread_of_equal_answers_is_zero_with_a_finite_gradient() -> None:
    for rows in (1, 4):
        logits = torch.tensor([[5.0, -5.0, 1e4]]).repeat(rows, 1).requires_grad_()
        loss = spread(logits)
        loss.backward()
        assert float(loss.detach()) == 0
        assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_spread_penalty_draws_the_answers_to_other_images_together(digits, teacher) -> None:
    x, y = digits
    auxiliary, probes = (default_auxiliary(SHAPE, 800, seed=seed, families=("noise", "shapes")) for seed in (1, 2))
    found = {}
    for penalty in (0.0, 2.0):
        trainer = alone(teacher, auxiliary, spread_penalty=penalty, confidence_penalty=0.0)
        trainer.fit(x[:1000], y[:1000], batch_size=64, nb_epochs=4)
        found[penalty] = float(spread(torch.from_numpy(trainer.predict(probes))))
        assert (trainer.history[-1].spread_auxiliary > 0) == (penalty > 0)
    assert found[2.0] < 0.6 * found[0.0]


def test_confidence_penalty_draws_the_answers_to_other_images_to_the_uniform_one(digits, teacher) -> None:
    x, y = digits
    auxiliary, probes = (default_auxiliary(SHAPE, 800, seed=seed, families=("noise", "shapes")) for seed in (1, 2))
    found = {}
    for penalty in (0.0, 1.5):
        trainer = alone(teacher, auxiliary, spread_penalty=0.0, confidence_penalty=penalty)
        trainer.fit(x[:1000], y[:1000], batch_size=64, nb_epochs=4)
        found[penalty] = softmax(trainer.predict(probes), axis=1).max(axis=1).mean()
        assert (trainer.history[-1].confidence_auxiliary > 0) == (penalty > 0)
    assert found[1.5] < 0.5 < found[0.0]


def test_divergence_has_finite_gradients_at_the_extremes() -> None:
    for kind in DIVERGENCES:
        student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
        divergence(torch.tensor([[-1e4, 1e4, 0.0]]), student, kind).backward()
        assert torch.isfinite(student.grad).all()


def test_zero_weights_are_plain_qat_bit_for_bit(digits, teacher) -> None:
    x, y = digits
    answers, weights = [], []
    options = {"seed": 5, "adversary": PGDAdversary(eps=0.05, steps=1)}
    for trainer in (
        QATTrainer(teacher, **options),
        DivQATTrainer(teacher, alpha=0.0, alpha_auxiliary=0.0, auxiliary=x[1000:1200], spread_penalty=2.0, **options),
    ):
        trainer.fit(x[:300], y[:300], (x[300:400], y[300:400]), nb_epochs=4)
        answers.append(trainer.predict(x[:200]))
        weights.append(trainer.get_classifier().twin.state_dict())
    np.testing.assert_array_equal(*answers)
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_divqat_keeps_accuracy_and_hides_the_teacher_off_distribution(digits, teacher) -> None:
    """The purpose, in small: a thief that queries with other images learns less than from plain QAT."""
    x, y = digits
    auxiliary = default_auxiliary(SHAPE, 1500, seed=1, families=("photographs", "smooth-noise", "shapes"))
    queries = default_auxiliary(SHAPE, 1500, seed=2, families=("photographs", "smooth-noise", "shapes"))
    victim_accuracy, thief_accuracy = {}, {}
    for name, weight in (("qat", 0.0), ("divqat", 0.3)):
        trainer = alone(teacher, auxiliary, alpha_auxiliary=weight)
        trainer.fit(x[:1000], y[:1000], (x[1000:1300], y[1000:1300]), batch_size=64, nb_epochs=8)
        classifier = trainer.get_classifier()
        victim_accuracy[name] = np.mean(classifier.predict(x[1300:]).argmax(1) == y[1300:])
        thief = fresh_classifier(seed=9, epochs=8)
        thief.fit(queries, softmax(classifier.predict(queries), axis=1))
        thief_accuracy[name] = np.mean(thief.predict(x[1300:]).argmax(1) == y[1300:])
    assert victim_accuracy["divqat"] >= victim_accuracy["qat"] - 0.03
    assert thief_accuracy["divqat"] <= thief_accuracy["qat"] - 0.15


def test_teacher_is_asked_once_about_images_that_are_not_augmented(digits, lenet_teacher, monkeypatch) -> None:
    x, y = digits
    asked = []
    original = DivQATTrainer._teacher

    def counting(self):
        teacher = original(self)
        return lambda images: (asked.append(len(images)), teacher(images))[1]

    monkeypatch.setattr(DivQATTrainer, "_teacher", counting)
    alone(lenet_teacher, x[1000:1100], alpha=0.1).fit(x[:200], y[:200], nb_epochs=5)
    assert sum(asked) == 300 + 200, "once to train, and the training images once to compare"


@pytest.mark.parametrize("penalty", [0.0, 2.0])
def test_the_step_is_the_formula(digits, lenet_teacher, monkeypatch, penalty: float) -> None:
    """One step's loss against the formula, computed apart from the loop."""
    x, y = digits
    seen = {}
    original = QATLoop._step

    def spy(self, batch, totals, *, training):
        with torch.no_grad():
            rows = self._auxiliary_order if self._auxiliary_order is not None else None
            seen.setdefault("order", rows)
        done = original(self, batch, totals, training=training)
        seen.setdefault("means", {name: total / totals.rows for name, total in totals.sums.items()})
        return done

    monkeypatch.setattr(QATLoop, "_step", spy)
    trainer = alone(
        lenet_teacher,
        x[1000:1100],
        alpha=0.2,
        alpha_auxiliary=0.7,
        alpha_mixtures=0.4,
        temperature=3.0,
        spread_penalty=penalty,
        confidence_penalty=3 * penalty,
    )
    trainer.fit(x[:64], y[:64], nb_epochs=1, batch_size=64)
    means = seen["means"]
    assert means["divergence"] > 0
    expected = means["cross_entropy"] - 0.2 * 9 * means["divergence"]
    for weight, name in ((0.7, "auxiliary"), (0.4, "mixtures")):
        spread_of_answers, far = means.get(f"spread_{name}", 0.0), means.get(f"confidence_{name}", 0.0)
        assert means[f"divergence_{name}"] > 0
        assert (spread_of_answers > 0) == (far > 0) == (penalty > 0)
        penalties = penalty * spread_of_answers + 3 * penalty * far
        expected -= weight * (9 * means[f"divergence_{name}"] - penalties)
    assert means["loss"] == pytest.approx(expected, rel=1e-5)


def auxiliary_of(trainer: DivQATTrainer, x: np.ndarray) -> np.ndarray:
    """The auxiliary images that a fit on `x` would see; nothing is trained."""
    images = trainer._objective(lambda images: images.flatten(1), None, x, 64, 1000, None).auxiliary
    assert images is not None
    return images.numpy()


@pytest.fixture
def small_mixture(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("art_divqat.data.auxiliary.AUXILIARY_IMAGES", 90)
    return 90


@pytest.mark.parametrize(("nb_epochs", "calls"), [(2, 4), (30, 30)])
def test_few_steps_ask_the_teacher_of_few_images_and_say_what_they_do(
    digits, lenet_teacher, small_mixture: int, nb_epochs: int, calls: int
) -> None:
    """Two steps an epoch of 4 auxiliary images; all 90 are asked at once where the steps would ask as many."""
    x, y = digits
    phases: list[tuple[int, int, str]] = []
    trainer = DivQATTrainer(lenet_teacher, seed=3, tolerance=None)
    asked: list[int] = []
    teacher = trainer._teacher

    def counting():
        ask = teacher()
        return lambda images: asked.append(len(images)) or ask(images)

    trainer._teacher = counting
    trainer.fit(x[:32], y[:32], nb_epochs=nb_epochs, batch_size=16, progress=lambda *each: phases.append(each))
    few = nb_epochs == 2
    # and 32 once more, for the comparison
    assert asked == ([4] * calls if few else [small_mixture]) + [32]
    steps = 2 * nb_epochs
    before = [(0, steps, "auxiliary images")]
    before += [] if few else [(0, steps, "teacher on auxiliary images, 0/90")]
    assert phases[: len(before)] == before
    assert phases[len(before)] == (1, steps, f"epoch 1/{nb_epochs}")
    assert phases[-1] == (steps, steps, "int8 network")


def test_a_teacher_asked_in_each_step_teaches_the_same(digits, lenet_teacher, small_mixture: int) -> None:
    class AtOnce(DivQATTrainer):
        def _objective(self, teacher, student, x, batch_size, steps, progress):
            return super()._objective(teacher, student, x, batch_size, 10**9, progress)

    x, y = digits
    records = []
    for kind in (DivQATTrainer, AtOnce):
        trainer = kind(lenet_teacher, seed=3, tolerance=None)
        trainer.fit(x[:32], y[:32], nb_epochs=3, batch_size=16)
        records.append(trainer.history[-1])
    assert records[0].loss == pytest.approx(records[1].loss, rel=1e-5)
    assert records[0].divergence_auxiliary == pytest.approx(records[1].divergence_auxiliary, rel=1e-4)


def test_default_auxiliary_is_used_where_none_is_given(digits, lenet_teacher, small_mixture: int) -> None:
    x, y = digits
    trainer = DivQATTrainer(lenet_teacher, seed=3)
    trainer.fit(x[:200], y[:200], nb_epochs=2)
    assert trainer.history[-1].divergence_auxiliary > 0
    seed = derive_seed("default auxiliary", 3)
    expected = default_auxiliary(SHAPE, small_mixture, seed=seed, training_images=x[:200])
    np.testing.assert_array_equal(auxiliary_of(trainer, x[:200]), expected)


def test_given_images_join_the_default_mixture(digits, lenet_teacher, small_mixture: int) -> None:
    x, _ = digits
    mixture = auxiliary_of(DivQATTrainer(lenet_teacher), x[:200])
    for count, joined in ((10, 10), (1000, small_mixture // len(FAMILIES))):
        images = auxiliary_of(DivQATTrainer(lenet_teacher, auxiliary=1 - x[:count]), x[:200])
        assert len(images) == joined + small_mixture
        np.testing.assert_array_equal(images[joined:], mixture)
    np.testing.assert_array_equal(auxiliary_of(alone(lenet_teacher, x[:1000]), x[:200]), x[:1000])


def test_giving_images_of_one_kind_does_not_take_away_what_the_mixture_protects(digits, teacher, monkeypatch) -> None:
    """Alone they leave other images to the attacker; beside the mixture they do not."""
    x, y = digits
    monkeypatch.setattr("art_divqat.data.auxiliary.AUXILIARY_IMAGES", 1000)
    given = default_auxiliary(SHAPE, 1000, seed=1, families=("noise",))
    others = default_auxiliary(SHAPE, 500, seed=2, families=("silhouettes",))
    certainty = {}
    for mixture in (False, True):
        trainer = DivQATTrainer(teacher, auxiliary=given, auxiliary_mixture=mixture)
        trainer.fit(x[:1000], y[:1000], batch_size=64, nb_epochs=5)
        certainty[mixture] = [softmax(trainer.predict(images), axis=1).max(axis=1).mean() for images in (given, others)]
    assert max(certainty[True]) < 0.3, "either kind is answered nearly uniformly"
    assert certainty[False][1] > 1.4 * certainty[True][1]


def with_clip_values(clip_values) -> PyTorchClassifier:
    network = build_model("lenet5", SHAPE, 10, seed=0)
    return PyTorchClassifier(
        network,
        torch.nn.CrossEntropyLoss(),
        SHAPE,
        10,
        optimizer=torch.optim.Adam(network.parameters()),
        clip_values=clip_values,
        device_type="cpu",
    )


def test_the_mixture_has_the_range_of_the_classifier(digits, small_mixture: int) -> None:
    x, _ = digits
    for low, high in ((0, 255), (-1, 1)):
        images = auxiliary_of(DivQATTrainer(with_clip_values((low, high))), low + (high - low) * x[:200])
        assert images.min() == low
        assert images.max() == high
    assert auxiliary_of(DivQATTrainer(with_clip_values(None)), x[:200]).max() == 1


@pytest.mark.parametrize(
    ("clip_values", "scale", "message"),
    [
        (None, 255, r"lies in \[0, 1\], the images from 0 to 255"),
        ((-np.inf, np.inf), 1, "needs finite clip_values"),
    ],
)
def test_a_mixture_of_unknown_range_is_refused_before_training(digits, clip_values, scale: int, message: str) -> None:
    x, y = digits
    classifier = with_clip_values(clip_values)
    with pytest.raises(UserError, match=message) as caught:
        DivQATTrainer(classifier).fit(scale * x[:100], y[:100], nb_epochs=1)
    assert "auxiliary_mixture=False" in str(caught.value)
    alone(classifier, scale * x[100:200]).fit(scale * x[:100], y[:100], nb_epochs=1)


def test_select_alpha_respects_the_tolerance(digits, lenet_teacher) -> None:
    x, y = digits
    selection = select_alpha(
        lenet_teacher, x[:500], y[:500], (x[1000:1300], y[1000:1300]),
        default_auxiliary(SHAPE, 300, seed=3), candidates=[(0.0, 0.1), (50.0, 0.0)],
        tolerance=0.05, fit_options={"nb_epochs": 3, "batch_size": 64}, auxiliary=default_auxiliary(SHAPE, 500, seed=4),
        auxiliary_mixture=False, divergence="kl-reverse", max_divergence=20.0,
    )  # fmt: skip
    by_weights = {(c.alpha, c.alpha_auxiliary): c for c in selection.candidates}
    assert (selection.alpha, selection.alpha_auxiliary) != (50.0, 0.0), "a weight that destroys the network was chosen"
    chosen = by_weights[selection.alpha, selection.alpha_auxiliary]
    assert chosen.accuracy >= selection.accuracy_floor == pytest.approx(selection.plain_accuracy - 0.05)
    assert chosen.agreement == min(
        c.agreement for c in selection.candidates if c.accuracy is not None and c.accuracy >= selection.accuracy_floor
    )
    served = selection.classifier.predict(x[1000:1300]).argmax(1)
    assert np.mean(served == y[1000:1300]) == chosen.accuracy


BAD = {
    "negative alpha": ({"alpha": -1}, r"'alpha' parameter of DivQATTrainer must be a float in \[0, inf\). Got -1"),
    "nan alpha": ({"alpha": float("nan")}, "alpha"),
    "negative spread penalty": ({"spread_penalty": -1.0}, "spread_penalty"),
    "infinite confidence penalty": ({"confidence_penalty": float("inf")}, "confidence_penalty"),
    "infinite": ({"alpha_auxiliary": float("inf")}, "alpha_auxiliary"),
    "bool": ({"alpha": True}, "alpha"),
    "temperature": ({"temperature": 0}, "temperature"),
    "divergence": ({"divergence": "tv"}, "one of 'js', 'kl', 'kl-reverse'"),
    "cap": ({"max_divergence": 0}, "max_divergence"),
    "fraction": ({"auxiliary_fraction": 0}, "auxiliary_fraction"),
    "auxiliary shape": ({"auxiliary": np.zeros((3, 1, 28, 28))}, r"auxiliary images must have shape \(N, 1, 8, 8\)"),
    "auxiliary range": ({"auxiliary": np.full((3, *SHAPE), 255.0)}, r"auxiliary images must lie in \[0, 1\]"),
    "auxiliary nan": ({"auxiliary": np.full((3, *SHAPE), np.nan)}, "not finite"),
    "no auxiliary": ({"auxiliary": np.zeros((0, *SHAPE))}, "no auxiliary images"),
    "neither images nor mixture": ({"auxiliary_mixture": False}, "Without a mixture there are no auxiliary images"),
    "mixture": ({"auxiliary_mixture": "none"}, "auxiliary_mixture"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str) -> None:
    options, message = BAD[name]
    with pytest.raises(UserError, match=message) as caught:
        DivQATTrainer(fresh_classifier(model="lenet5"), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 20)])
@pytest.mark.parametrize("family", FAMILIES)
def test_auxiliary_families(family: str, shape: tuple[int, int, int]) -> None:
    training = np.random.default_rng(0).random((20, *shape)).astype(np.float32)
    with isolated_random_state(0):
        before = np.random.get_state()[1].tolist()
        images = default_auxiliary(shape, 12, seed=1, training_images=training, families=(family,))
        assert before == np.random.get_state()[1].tolist()
    again = default_auxiliary(shape, 12, seed=1, training_images=training, families=(family,))
    other = default_auxiliary(shape, 12, seed=2, training_images=training, families=(family,))
    assert images.shape == (12, *shape)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    np.testing.assert_array_equal(images, again)
    assert not np.array_equal(images, other)
    assert len(np.unique(images.reshape(12, -1), axis=0)) == 12
    assert images.std(axis=(1, 2, 3)).min() > 0, "a blank image teaches nothing"


@given(n=st.integers(1, 17))
@settings(max_examples=8, deadline=None)
def test_auxiliary_mixture_has_the_size_asked(n: int) -> None:
    assert default_auxiliary((1, 8, 8), n).shape == (n, 1, 8, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (2, 8, 8), "n": 3}, "1 or 3 channels"),
        ({"input_shape": (1, 8, 8), "n": 0}, "'n'"),
        ({"input_shape": (1, 8, 8), "n": 3, "families": ("cats",)}, "Unknown family"),
        ({"input_shape": (1, 8, 8), "n": 3, "families": ("mixed-training",)}, "training_images"),
    ],
)
def test_auxiliary_bad_input(options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        default_auxiliary(**options)
