"""Conformance check of victims: test your own against the contract."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from art_divqat.parameters import checked
from art_divqat.registry import load_target
from art_divqat.specs import Spec, parse_spec
from art_divqat.testing._common import fitting, require, small_digits, undisturbed
from art_divqat.victims.registry import AUXILIARY_MIXTURE, VICTIMS, VictimEntry

if TYPE_CHECKING:
    from art_divqat.data import Dataset
    from art_divqat.victims.training import VictimContext

_SUBJECT = "The victim"
_EPSILON = 0.2


def check_victim(entry: VictimEntry, text: str = "victim") -> None:
    """Train a victim twice on a few images of digits and check what every victim must keep.

    It is a `RecipeClassifier`, or a `QuantizedPyTorchClassifier` if the entry says that it is quantized, which gives
    finite logits, one a class; one seed gives one victim, whatever the test images and the attacker's images are; the
    data and the parent are left as they were, and the global random states; the store keeps it and gives it back.

    :param text: its name and parameters, as the command line has them; without parameters any name will do.
    :raises AssertionError: naming what was broken.
    :raises UserError: for parameters that it does not take.

    >>> from art_divqat.victims.registry import VICTIMS
    >>> check_victim(VICTIMS["standard"])
    """
    spec = _spec(entry, text)
    dataset = small_digits()
    parent = None if entry.parent is None else _parent(entry.parent, dataset)
    first = _trained(entry, spec, _context(dataset, parent), dataset)
    other = _trained(entry, spec, _context(_other_held_out_images(dataset), parent), dataset)
    if not np.allclose(first, other, atol=1e-5):
        again = _trained(entry, spec, _context(dataset, parent), dataset)
        require(np.allclose(first, again, atol=1e-5), _SUBJECT, "gave two classifiers from one seed")
        require(False, _SUBJECT, "learns from the test images, or from those of the attacker: train on x_train alone")


def _spec(entry: VictimEntry, text: str) -> Spec:
    spec = parse_spec(text)
    usual = {"epsilon": _EPSILON, "auxiliary": AUXILIARY_MIXTURE}
    given = {**{name: value for name, value in usual.items() if name in entry.parameters}, **spec.as_dict}
    return Spec(spec.name, ()).with_parameters(checked("victim", spec.name, given, entry.parameters))


def _context(dataset: Dataset, parent: Any = None) -> VictimContext:
    from art_divqat.data.photos import photo_patches
    from art_divqat.estimators import TrainingRecipe
    from art_divqat.victims.training import VictimContext

    return VictimContext(
        # a victim that writes to its data damages no other check
        copy.deepcopy(dataset),
        "small-cnn",
        TrainingRecipe(epochs=2),
        seed=0,
        device="cpu",
        parent=parent,
        auxiliary=lambda spec: photo_patches(128, dataset.input_shape),
    )


def _parent(name: str, dataset: Dataset) -> Any:
    entry = VICTIMS[name]
    return load_target(entry.train)(_context(dataset), _spec(entry, name))


def _other_held_out_images(dataset: Dataset) -> Dataset:
    """The same data set with noise, of any class, for every image that a victim may not learn from."""
    random = np.random.default_rng(0)
    changed: dict[str, Any] = {}
    for part in ("test", "pool"):
        images, labels = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")
        changed[f"x_{part}"] = random.random(images.shape, np.float32)
        changed[f"y_{part}"] = random.permutation(labels)
    return replace(dataset, **changed)


def _trained(entry: VictimEntry, spec: Spec, context: VictimContext, dataset: Dataset) -> Any:
    """The answers of the victim to test images, after every check of one training."""
    from art_divqat.victims.training import checked_victim

    arrays = ("x_train", "y_train", "x_validation", "y_validation")
    before = [getattr(context.dataset, name).copy() for name in arrays]
    parent = context.parent
    parents_answers = None if parent is None else parent.predict(dataset.x_test)
    with undisturbed(_SUBJECT):
        trained = load_target(entry.train)(context, spec)
    with fitting(_SUBJECT):
        classifier = checked_victim(trained, entry, str(spec))
    for name, array in zip(arrays, before, strict=True):
        require(np.array_equal(getattr(context.dataset, name), array), _SUBJECT, f"changed {name} of its data set")
    if parent is not None and parents_answers is not None:
        unchanged = np.array_equal(parent.predict(dataset.x_test), parents_answers)
        require(unchanged, _SUBJECT, "changed the parent that it starts from: train a copy")
        require(classifier is not parent, _SUBJECT, "is its parent itself: train a copy")
    answers = classifier.predict(dataset.x_test)
    expected = (len(dataset.x_test), dataset.nb_classes)
    require(answers.shape == expected, _SUBJECT, f"answers with shape {answers.shape}: expected {expected}")
    require(bool(np.isfinite(answers).all()), _SUBJECT, "gives answers that are not finite")
    probabilities = bool((answers >= 0).all()) and bool((np.abs(answers.sum(axis=1) - 1) < 1e-4).all())
    require(not probabilities, _SUBJECT, "gives probabilities: logits are expected, the softmax comes later")
    require(
        np.allclose(_kept(classifier, context, dataset), answers, atol=1e-4),
        _SUBJECT,
        "answers differently once restored",
    )
    return answers


def _kept(classifier: Any, context: VictimContext, dataset: Dataset) -> Any:
    """The answers of what the store gives back."""
    from art_divqat.estimators import QuantizedPyTorchClassifier, RecipeClassifier
    from art_divqat.victims.store import VictimStore

    with tempfile.TemporaryDirectory() as folder:
        store = VictimStore(Path(folder))
        if isinstance(classifier, RecipeClassifier):
            restored = context.fresh_classifier()
            store.save_weights({}, classifier.model)
            found = store.load_weights({}, restored.model)
            require(found, _SUBJECT, "has other weights than context.fresh_classifier(), and cannot be restored")
            restored.model.eval()
            return restored.predict(dataset.x_test)
        store.save_folder({}, "victim", classifier.save)
        loaded = store.load_folder({}, "victim", QuantizedPyTorchClassifier.load)
        require(loaded is not None, _SUBJECT, "cannot be restored from what it saves")
        return None if loaded is None else loaded.predict(dataset.x_test)
