"""Evasion attacks combined: the worst case over several for each image, and robust accuracy over ε."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._rng import derive_seed
from art_divqat._types import Progress
from art_divqat.attacks.evasion.crafting import craft, true_labels
from art_divqat.data.checks import float_images
from art_divqat.errors import UserError
from art_divqat.estimators.conventions import unit_predict

ScoreFunction = Callable[[NDArray[np.float32]], NDArray[Any]]


def _margins(scores: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Score of the true class minus the highest other score; wrong answers are not above 0."""
    scores = np.asarray(scores, np.float64).copy()
    rows = np.arange(len(labels))
    true = scores[rows, labels]
    wrong = scores.argmax(axis=1) != labels
    scores[rows, labels] = -np.inf
    margin = true - scores.max(axis=1)
    # a tie that argmax breaks against the true class is a wrong answer; one broken for it is not
    return np.where(wrong, np.minimum(margin, -np.finfo(float).tiny), np.maximum(margin, 0.0))


def worst_case(
    predict: ScoreFunction, candidates: Sequence[NDArray[np.float32]], y: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """For each image the candidate with the smallest margin of the true class, under the scores of `predict`.

    If any candidate fools the victim, so does the one taken: no attack's success is lost to another's.

    :param predict: images in [0, 1] to scores (N, classes), of the victim as it serves. The `predict` method of an ART
        classifier of other `clip_values` is given images in those.
    :param candidates: arrays of equal shape (N, C, H, W), one for each attack.
    :param y: true class ids (N,) or one-hot rows.
    :returns: the images taken, and for each the index of its candidate.
    :raises UserError: for no candidates, or candidates of different shapes.

    >>> score = lambda x: np.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], axis=1)
    >>> bright, dark = np.ones((2, 1, 2, 2), np.float32), np.zeros((2, 1, 2, 2), np.float32)
    >>> worst_case(score, [bright, dark], np.array([0, 1]))[1].tolist()
    [1, 0]
    """
    if not candidates or len({candidate.shape for candidate in candidates}) != 1:
        raise UserError("The worst case needs at least one array of examples, all of one shape.")
    labels, predict = true_labels(y, len(candidates[0])), _on_unit_images(predict)
    if len(labels) == 0:
        return candidates[0].copy(), np.zeros(0, np.int64)
    margins = np.stack([_margins(predict(candidate), labels) for candidate in candidates])
    chosen = margins.argmin(axis=0)
    return np.stack(candidates)[chosen, np.arange(len(labels))], chosen.astype(np.int64)


def craft_worst_case(
    victim: Any,
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    epsilon: float,
    twin: Any = None,
    parent: Any = None,
    steps: int = 20,
    square_queries: int = 500,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """The worst of PGD on the twin, PGD on the full-precision parent, and Square on the victim itself.

    For a victim without gradients, such as an int8 network: none of the three alone bounds its robust accuracy.

    :param victim: an ART classifier, a module, or a function from images to scores.
    :param twin: a differentiable stand-in (straight-through gradients); by default `victim.twin` if it has one.
    :param parent: the network or classifier that the victim was quantized from, or None.
    :param steps: of PGD; :param square_queries: of Square for each image.
    :param progress: called with (images done, images over all attacks).
    :returns: the worst examples, and every attack's own by name: `twin`, `parent`, `square`.
    :raises UserError: as :func:`craft` does.

    >>> from art_divqat.models import build_model
    >>> network = build_model("lenet5", (1, 8, 8), 10, seed=0)
    >>> x, y = np.full((2, 1, 8, 8), 0.5, np.float32), np.array([3, 4])
    >>> worst, each = craft_worst_case(network, x, y, epsilon=0.1, twin=network, square_queries=5)
    >>> sorted(each)
    ['square', 'twin']
    """
    twin = getattr(victim, "twin", None) if twin is None else twin
    plans: dict[str, tuple[Any, str, int]] = {
        name: (target, "pgd", steps) for name, target in (("twin", twin), ("parent", parent)) if target is not None
    }
    plans["square"] = (victim, "square", square_queries)
    examples: dict[str, NDArray[np.float32]] = {}
    for number, (name, (target, attack, attack_steps)) in enumerate(plans.items()):
        part_progress = None if progress is None else _part_of(progress, number, len(plans))
        examples[name] = craft(
            target,
            x,
            y,
            attack=attack,
            epsilon=epsilon,
            steps=attack_steps,
            restarts=restarts,
            seed=derive_seed("worst-case", name, seed),
            batch_size=batch_size,
            progress=part_progress,
        )
    predict = victim.predict if hasattr(victim, "predict") else _scores_of(victim)
    return worst_case(predict, list(examples.values()), y)[0], examples


def _part_of(progress: Progress, number: int, parts: int) -> Progress:
    return lambda done, total: progress(number * total + done, parts * total)


def _scores_of(victim: Any) -> ScoreFunction:
    """Scores of a module or function, as `predict` gives them."""
    import torch

    from art_divqat.attacks.evasion.networks import Target

    view = Target(victim, None, gradients=False)

    def predict(x: NDArray[np.float32]) -> NDArray[Any]:
        with view.attacked(), torch.no_grad():
            return view(torch.from_numpy(x).to(view.device)).cpu().numpy()

    return predict


def _on_unit_images(predict: ScoreFunction) -> ScoreFunction:
    """A classifier's own `predict` behind the way into its range of pixels; any other function as it is."""
    owner = getattr(predict, "__self__", None)
    is_own = hasattr(owner, "clip_values") and getattr(owner, "predict", None) == predict
    return unit_predict(owner) if is_own else predict


def robust_mask(
    target: Any,
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    epsilons: Sequence[float],
    predict: ScoreFunction,
    known: Mapping[float, NDArray[np.float32]] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> NDArray[np.bool_]:
    """Which images no attack in a ball of at most each radius fooled; shape (radii, images), radii ascending.

    The ball of a smaller radius lies in that of a larger one, so an image that was fooled stays fooled, and only what
    is left is attacked at the next radius: the rates never rise, and each radius costs the share that still stands.
    What is left out with that: whether the attack at a larger radius would have found it by itself.

    :param epsilons: ascending radii in [0, 1]; 0 asks the images as they are.
    :param predict: images to scores (N, classes), of the same network; as for :func:`worst_case`.
    :param known: radius → examples for all images that were crafted before, taken in place of a new attack there.
    :param settings: further arguments of :func:`craft`.
    :param progress: called with (radii done, radii).
    :raises UserError: for radii that do not ascend, and as :func:`craft` does.

    >>> from art_divqat.models import build_model
    >>> network = build_model("lenet5", (1, 8, 8), 10, seed=0)
    >>> score = lambda x: np.eye(10)[np.where(x.mean((1, 2, 3)) > 0.02, 1, 3)]
    >>> robust_mask(network, np.zeros((2, 1, 8, 8)), np.array([3, 1]), epsilons=[0, 0.1], predict=score).tolist()
    [[True, False], [False, False]]
    """
    radii = [float(epsilon) for epsilon in epsilons]
    if radii != sorted(set(radii)):
        raise UserError(f"The radii of a curve must ascend, each once. Got {', '.join(map('{:g}'.format, radii))}.")
    images = float_images(x, "Images")
    labels = true_labels(y, len(images))
    predict = _on_unit_images(predict)
    left, mask = np.ones(len(images), np.bool_), np.empty((len(radii), len(images)), np.bool_)
    for number, epsilon in enumerate(radii):
        rows = left.nonzero()[0]
        if len(rows):
            if known is not None and epsilon in known:
                crafted = known[epsilon][rows]
            else:
                crafted = craft(target, images[rows], labels[rows], epsilon=epsilon, **settings)
            left[rows] = np.asarray(predict(crafted)).argmax(axis=1) == labels[rows]
        mask[number] = left
        if progress is not None:
            progress(number + 1, len(radii))
    return mask


def robustness_curve(
    target: Any,
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    epsilons: Sequence[float],
    predict: ScoreFunction,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[float, float]:
    """ε → accuracy of `predict` on examples crafted on `target` within ε; 0 is the clean accuracy.

    `predict` may be another network than `target`: then it is a transfer curve.

    :param epsilons: radii in [0, 1].
    :param predict: images to scores (N, classes); as for :func:`worst_case`.
    :param settings: further arguments of :func:`craft`.
    :param progress: called with (radii done, radii).
    :raises UserError: as :func:`craft` does.

    >>> from art_divqat.models import build_model
    >>> network = build_model("lenet5", (1, 8, 8), 10, seed=0)
    >>> score = lambda x: np.eye(10)[np.full(len(x), 3)]
    >>> robustness_curve(network, np.zeros((4, 1, 8, 8)), np.array([3, 3, 3, 1]), epsilons=[0, 0.1], predict=score)
    {0.0: 0.75, 0.1: 0.75}
    """
    images, curve = float_images(x, "Images"), {}
    labels, predict = true_labels(y, len(images)), _on_unit_images(predict)
    if len(images) == 0:
        raise UserError("A robustness curve needs at least one image.")
    for number, epsilon in enumerate(epsilons):
        crafted = craft(target, images, labels, epsilon=epsilon, **settings)
        curve[float(epsilon)] = float((np.asarray(predict(crafted)).argmax(axis=1) == labels).mean())
        if progress is not None:
            progress(number + 1, len(epsilons))
    return curve
