"""Attackers with images of the victim's own kind: these alone, with a pool, augmented, with labels.

The registry names these functions; each takes an :class:`~art_divqat.attacks.extraction.contract.AttackContext` whose
`own_images` are there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from art_divqat._rng import derive_seed
from art_divqat.attacks.extraction._base import QueryClient, allocate_images, fill_images, fit_thief
from art_divqat.attacks.extraction.augmentation import augmented
from art_divqat.attacks.extraction.contract import AttackContext, AttackOutcome
from art_divqat.attacks.extraction.parameters import POOL_QUERIES
from art_divqat.data.stored import ImageSet, take

_Images = ImageSet
_Answers = NDArray[np.float32]


def own_images(context: AttackContext) -> AttackOutcome:
    """Train a thief on variants of the own images with their true labels; the victim is not asked at all."""
    own, labels = _own(context), _true_labels(context)
    variants, of = _variants(context, max(len(own), context.parameters["variants"]))
    return _trained(context, variants, labels[of], kept=0)


def own_and_pool(context: AttackContext) -> AttackOutcome:
    """Ask the own images first, then random images of the pool up to the budget, and learn from the answers."""
    own = _own(context)
    random = np.random.RandomState(_seed(context))
    first = random.permutation(len(own))[: context.budget]
    rows = random.permutation(len(context.pool))[: context.budget - len(first)]
    images = allocate_images(context.budget, own.shape[1:])
    fill_images(images, take(own, first), take(context.pool, rows))
    return _distilled(context, images)


def own_augmented(context: AttackContext) -> AttackOutcome:
    """Ask variants of the own images, up to the budget, and learn from the answers."""
    variants, _ = _variants(context, context.budget)
    return _distilled(context, variants)


def semi_supervised(context: AttackContext) -> AttackOutcome:
    """L = −Σₖ (w·1[k = label] + (1 − w)·yₖ) log softmax(f_A(x))ₖ: the true labels and the answers in one loss.

    What is asked are variants of the own images, whose true labels are known, in part or in whole (`pool_share`); on
    images of the pool the answer stands alone. As many further variants again are learned from their true labels.
    """
    own, labels = _own(context), _true_labels(context)
    chosen = context.parameters
    from_pool = round(context.budget * chosen["pool_share"])
    asked_own = context.budget - from_pool
    variants, of = _variants(context, asked_own + max(len(own), context.budget))
    truth = labels[of]
    rows = np.random.RandomState(_seed(context)).permutation(len(context.pool))[:from_pool]
    client = QueryClient(context.victim, POOL_QUERIES["batch_size_query"].default)
    answers = client.ask_rows(variants, np.arange(asked_own)) if asked_own else truth[:0]
    kept = len(answers)
    truth[:kept] = chosen["label_weight"] * truth[:kept] + (1 - chosen["label_weight"]) * answers
    images, targets = variants, truth
    if from_pool and not client.stopped:
        of_pool = client.ask_rows(context.pool, rows)
        images = allocate_images(len(variants) + len(of_pool), variants.shape[1:])
        fill_images(images, variants, take(context.pool, rows[: len(of_pool)]))
        targets = np.concatenate([truth, of_pool])
        kept += len(of_pool)
    return _trained(context, images, targets, kept=kept, stopped=client.stopped)


def _own(context: AttackContext) -> _Images:
    assert context.own_images is not None, "run_attack refuses an attack that needs own images and has none"
    return context.own_images


def _true_labels(context: AttackContext) -> _Answers:
    """The true labels of the own images as one-hot rows."""
    assert context.own_labels is not None, "run_attack refuses an attack that needs true labels and has none"
    return np.eye(context.victim.nb_classes, dtype=np.float32)[context.own_labels]


def _seed(context: AttackContext) -> int:
    return derive_seed("attack", "own-images", context.seed) % 2**32


def _variants(context: AttackContext, count: int) -> tuple[_Images, NDArray[np.int64]]:
    return augmented(_own(context), count, _seed(context), flips=context.parameters["flips"])


def _distilled(context: AttackContext, images: _Images) -> AttackOutcome:
    """Ask all of these images and train a thief on the answers."""
    client = QueryClient(context.victim, POOL_QUERIES["batch_size_query"].default)
    answers = client.ask_rows(images, np.arange(len(images)))
    return _trained(context, take(images, slice(len(answers))), answers, kept=len(answers), stopped=client.stopped)


def _trained(
    context: AttackContext, images: _Images, targets: _Answers, *, kept: int, stopped: bool = False
) -> AttackOutcome:
    """A thief of the comparison's recipe, trained on these."""
    thief = context.build_thief()
    fit_thief(thief, images, targets, batch_size=thief.recipe.batch_size, nb_epochs=thief.recipe.epochs)
    return AttackOutcome(thief, {"images_kept": float(kept), "stopped_early": float(stopped)})
