"""Classes of a model and of the data: which output stands for which class, where the model has more of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from art_divqat._rng import numpy_generator
from art_divqat._types import Labels
from art_divqat.errors import UserError
from art_divqat.victims.external.settings import ExternalModel

# a p value above it is chance
_LUCK = 1e-3


@dataclass(frozen=True)
class MatchedClasses:
    """Which output of a model stands for each class of the data.

    :param ids: of the classes in their order; empty if they are the first outputs; None if it is not known, so that
        nobody can say which answers are right.
    :param right: of the answers that were looked at; None where that is not known.
    """

    ids: tuple[int, ...] | None
    right: int | None


@dataclass(frozen=True)
class StatedClasses:
    """What is said beforehand of a model's classes.

    :param count: how many there are; a model that gives rows may show more.
    :param names: by which answers are read, in the model's order.
    :param of_the_data: names of the data's classes, for :func:`match_classes`.
    """

    count: int
    names: tuple[str, ...]
    of_the_data: tuple[str, ...]


def stated_classes(model: ExternalModel, nb_classes: int, class_names: Sequence[str] = ()) -> StatedClasses:
    """The classes that a model was said to have; else those of the data.

    :param nb_classes: of the data, as for `class_names`.
    :raises UserError: for fewer classes than the data has, or names that lack some of the data's.

    >>> stated_classes(ExternalModel(classes=("ant", "bee", "cat")), 2, ("cat", "ant")).of_the_data
    ('2', '0')
    """
    names = tuple(class_names)
    if model.classes is None:
        return StatedClasses(nb_classes, names, names)
    if isinstance(model.classes, int):
        if model.classes < nb_classes:
            raise UserError(
                f"--classes says {model.classes}; the data has {nb_classes}: give the number of the model's."
            )
        return StatedClasses(model.classes, names, names)
    lacking = next((name for name in names if name not in model.classes), None)
    if lacking is not None or not names:
        raise UserError(
            f"--classes names {len(model.classes)} classes, and {'none is' if names else 'the data has no names'} "
            f"{repr(lacking) if names else 'to find among them'}: name the classes of the data as the model does."
        )
    return StatedClasses(len(model.classes), model.classes, tuple(str(model.classes.index(name)) for name in names))


def match_classes(
    answers: NDArray[np.float32],
    y: Labels,
    class_names: Sequence[str] = (),
    description: str = "The model",
    again: Callable[[], NDArray[np.float32]] | None = None,
    size: str = "",
    numbers: Sequence[int] = (),
) -> MatchedClasses:
    """By place, by names that are numbers, or by the labels' own numbers: by what most answers are right by.

    A model with more classes may also know the images by other ones.

    That it knows them shows in the answers: each class of the data mostly gets an output of its own, found on one half
    of the images and looked for on the other.

    :param answers: to labelled images, (N, classes of the model).
    :param again: asks the model the first of these images once more; called only for a model that is refused.
    :param size: of the images, as a refusal names it.
    :param numbers: of the data's classes, where its labels have gaps.
    :raises UserError: if the answers have no more to do with the labels than chance would (p > 0.001), which
        normalisation, channel or class order missing its due looks like, and noise: then two answers to one image
        name different classes.

    >>> rows = np.eye(20, dtype=np.float32)[[7, 3, 7, 12, 3, 12] * 10]
    >>> match_classes(rows, np.array([1, 0, 1, 2, 0, 2] * 10), ("3", "7", "12")).ids
    (3, 7, 12)
    >>> match_classes(rows, np.array([1, 0, 1, 2, 0, 2] * 10), ("cat", "dog", "owl"), numbers=(3, 7, 12)).ids
    (3, 7, 12)
    >>> match_classes(rows, np.array([1, 0, 1, 2, 0, 2] * 10), ("cat", "dog", "owl")).ids is None
    True
    """
    given, outputs = answers.argmax(axis=1), answers.shape[1]
    chance = max(np.bincount(y).max() / len(y), 1 / outputs)
    right = int((given == y).sum())
    best = MatchedClasses((), right)
    for ids in (_numbers(class_names), tuple(numbers)):
        if ids and ids != tuple(range(len(ids))) and max(ids) < outputs:
            # some of the first classes may be called by their place, too
            right_by_ids = int((given == np.array(ids)[y]).sum())
            best = MatchedClasses(ids, right_by_ids) if right_by_ids >= (best.right or 0) else best
    if _beyond_luck(best.right or 0, len(y), chance):
        return best
    if outputs > max(len(class_names), int(y.max()) + 1) and _knows(given, y):
        return MatchedClasses(None, None)
    second = given[:0] if again is None else again().argmax(axis=1)
    changed = int((second != given[: len(second)]).sum())
    noise = (
        f" its noise (asked the same {len(second)} images twice, it names another class for {changed}: lower what its "
        "defence adds, or put it into eval mode), and"
        if changed
        else ""
    )
    raise UserError(
        f"{description} is right on {best.right} of {len(y)} test images, no better than chance: check{noise} that "
        f"it belongs to this data{f' at {size} pixels (--image-size)' if size else ''}, the order of its classes, and "
        "its normalisation (--mean, --std)."
    )


def _numbers(class_names: Sequence[str]) -> tuple[int, ...] | None:
    """Names that are all numbers, as such."""
    decimal = bool(class_names) and all(name.isdecimal() and len(name) < 7 for name in class_names)
    return tuple(map(int, class_names)) if decimal else None


def _knows(given: Labels, y: Labels) -> bool:
    """Whether the outputs that the classes mostly get in one half of the images are theirs in the other half too."""
    order = numpy_generator("halves", 0).permutation(len(y))
    seen, left = order[::2], order[1::2]
    usual = {label: np.bincount(given[seen][y[seen] == label]).argmax() for label in np.unique(y[seen])}
    theirs = np.array([usual.get(label, -1) for label in y[left]])
    found = given[left]
    most = np.bincount(found).max() / max(len(found), 1) if len(found) else 1.0
    return _beyond_luck(int((found == theirs).sum()), len(found), most)


def _beyond_luck(right: int, images: int, chance: float) -> bool:
    if images == 0:
        return False
    p_value = stats.binomtest(right, images, float(min(chance, 1.0)), alternative="greater").pvalue
    return bool(p_value <= _LUCK)
