"""Craft adversarial examples by FGSM, PGD, AutoAttack or Square.

x' = argmax of the loss on the true label over |x' − x| ≤ ε, 0 ≤ x' ≤ 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from art_divqat._rng import derive_seed, isolated_random_state, numpy_generator
from art_divqat._types import Progress
from art_divqat._validation import check_choice, check_int
from art_divqat.attacks.evasion.ball import check_epsilon, check_steps, linf_bounds, project
from art_divqat.attacks.evasion.networks import Target
from art_divqat.data.checks import check_labels, float_images
from art_divqat.errors import UserError
from art_divqat.estimators.conventions import check_tensor

EVASION_ATTACKS: dict[str, str] = {
    "fgsm": "one step of the gradient's sign (Goodfellow et al., ICLR 2015)",
    "pgd": "projected gradient steps from random starts (Madry et al., ICLR 2018)",
    "autoattack": "the standard ensemble APGD-CE, APGD-T, FAB-T, Square (Croce and Hein, ICML 2020); torchattacks'",
    "square": "random search on the scores, no gradients (Andriushchenko et al., ECCV 2020); torchattacks'",
}
_DEFAULT_STEPS = {"fgsm": 1, "pgd": 20, "autoattack": 100, "square": 1000}
_AUTOATTACK_STEPS = 100
# images that show whether a network gives logits or probabilities
_LOOKED_AT = 8


def craft(
    target: Any,
    x: NDArray[Any],
    y: NDArray[Any] | None,
    *,
    attack: str = "pgd",
    epsilon: float,
    steps: int | None = None,
    step_size: float | None = None,
    restarts: int = 1,
    early_stop: bool = False,
    seed: int = 0,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Adversarial examples for the true labels `y`: every one within ε of its image in L∞ and within [0, 1], exactly.

    An attack that fails on an example returns the worst point that it found, so the accuracy on what comes back is the
    robust accuracy under this attack. The network's mode and gradients, and the global random state, stay as they were.

    :param target: a torch module that gives logits, or probabilities, of which the logarithm is taken; an ART PyTorch
        classifier (its network; postprocessors are not seen); an int8 classifier (its differentiable `twin` for attacks
        that need gradients, its `predict` for `square`); or, for `square`, any ART classifier, or function from images
        to scores of shape (N, classes), which may be a whole defended service.
        An ART classifier of other `clip_values` than (0, 1) is shown the images in those; one with a single logit
        has two classes.
    :param x: images in [0, 1] of shape (N, C, H, W), whatever the target's `clip_values`.
    :param y: true class ids (N,), or one-hot rows (N, classes). Predicted labels would count natural errors as robust.
    :param attack: `fgsm`, `pgd`, `autoattack` or `square`.
    :param epsilon: radius in [0, 1]; 0 returns a copy.
    :param steps: of `pgd` (20), or queries of `square` (1000); `fgsm` takes one and `autoattack` always its published
        100 (and 5000 queries).
    :param step_size: of `pgd`, in units of pixels; by default min(ε, 2.5 ε / steps).
    :param restarts: random starts of `pgd`; the worst counts.
    :param early_stop: leave a `pgd` example at the first point that fools the network. The examples that fool it are
        the same and cost less; they lie nearer to the boundary, so they transfer less to other networks.
    :param seed: decides random starts and searches. For `pgd` and `fgsm` the batch size does not enter.
    :param device: of the attack; by default that of the network's parameters.
    :param progress: called with (images done, images) after each batch.
    :raises UserError: for bad images, missing labels, ε in 0–255 units, steps that cannot reach the edge of the ball,
        or a network that the attack does not apply to.

    >>> from art_divqat.models import build_model
    >>> x = np.full((2, 1, 8, 8), 0.5, np.float32)
    >>> x_adversarial = craft(build_model("lenet5", (1, 8, 8), 10, seed=0), x, np.array([3, 4]), epsilon=0.1)
    >>> bool(np.abs(x_adversarial - x).max() <= np.float32(0.1))
    True
    """
    check_choice("craft", "attack", attack, tuple(EVASION_ATTACKS))
    epsilon = check_epsilon("craft", epsilon)
    check_int("craft", "restarts", restarts, 1)
    check_int("craft", "batch_size", batch_size, 1)
    steps = _DEFAULT_STEPS[attack] if steps is None else check_int("craft", "steps", steps, 1)
    step_size = check_steps("craft", epsilon, steps, step_size) if attack == "pgd" else step_size
    images = float_images(x, "Images")
    labels = true_labels(y, len(images))
    if epsilon == 0 or len(images) == 0:
        return images.copy()

    view = Target(target, device, gradients=attack != "square")
    answer = np.empty_like(images)
    starts = [numpy_generator("pgd-start", seed, restart) for restart in range(restarts)]
    with isolated_random_state("evasion", attack, seed), view.attacked():
        view.read_answers(torch.from_numpy(images[:_LOOKED_AT]).to(view.device))
        classes = _check_target(view, images[:1], attack)
        view.set_memory_format(torch.from_numpy(images[:1]).to(view.device))
        if labels.max() >= classes:
            raise UserError(f"A label is {labels.max()}, but the network has {classes} classes.")
        for begin in range(0, len(images), batch_size):
            rows = slice(begin, begin + batch_size)
            part = images[rows]
            x_batch, y_batch = torch.from_numpy(part).to(view.device), torch.from_numpy(labels[rows]).to(view.device)
            if attack in ("fgsm", "pgd"):
                low, high = (torch.from_numpy(bound).to(view.device) for bound in linf_bounds(part, epsilon))
                if attack == "fgsm":
                    crafted = _step(view, x_batch, y_batch, epsilon)[0].clamp(low, high)
                else:
                    noise = (torch.from_numpy(g.random(part.shape, np.float32)).to(view.device) for g in starts)
                    crafted = _pgd(view, x_batch, y_batch, low, high, noise, steps, step_size or 0.0, early_stop)
            else:
                batch_seed = derive_seed(attack, seed, begin) % 2**31
                crafted = _torchattacks(view, attack, epsilon, steps, classes, batch_seed)(x_batch, y_batch).detach()
            answer[rows] = crafted.cpu().numpy()
            if progress is not None:
                progress(min(begin + batch_size, len(images)), len(images))
    return project(answer, images, epsilon)


def _step(view: Target, x: Tensor, y: Tensor, size: float) -> tuple[Tensor, Tensor, Tensor]:
    """One ascent step from `x`, with the logits and the loss of each example at `x`."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = view(x)
        loss = nn.functional.cross_entropy(logits, y, reduction="none")
        # the sum and not the mean: the gradient of one example then does not underflow because it has neighbours
        (gradient,) = torch.autograd.grad(loss.sum(), x)
    return x.detach() + size * gradient.sign(), logits.detach(), loss.detach()


def _pgd(
    view: Target,
    x: Tensor,
    y: Tensor,
    low: Tensor,
    high: Tensor,
    starts: Iterator[Tensor],
    steps: int,
    step_size: float,
    early_stop: bool,
) -> Tensor:
    """Of all points visited, the one of highest loss among those that fool; if none fools, of highest loss."""
    best, best_loss = x.clone(), torch.full((len(x),), -torch.inf, device=x.device)
    fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def keep(rows: Tensor, points: Tensor, logits: Tensor, loss: Tensor) -> None:
        fools = logits.argmax(1) != y[rows]
        better = (fools & ~fooled[rows]) | ((fools == fooled[rows]) & (loss > best_loss[rows]))
        chosen = rows[better]
        best[chosen], best_loss[chosen] = points[better], loss[better]
        fooled[chosen] = fools[better]

    for noise in starts:
        rows = (~fooled).nonzero().flatten() if early_stop else torch.arange(len(x), device=x.device)
        point = low[rows] + noise[rows] * (high[rows] - low[rows])
        for _ in range(steps):
            if len(rows) == 0:
                break
            moved, logits, loss = _step(view, point, y[rows], step_size)
            keep(rows, point, logits, loss)
            if early_stop:
                going = ~fooled[rows]
                rows, moved = rows[going], moved[going]
            point = torch.minimum(torch.maximum(moved, low[rows]), high[rows])
        if len(rows):
            with torch.no_grad():
                logits = view(point)
            keep(rows, point, logits, nn.functional.cross_entropy(logits, y[rows], reduction="none"))
    return best


def _torchattacks(view: Target, attack: str, epsilon: float, steps: int, classes: int, seed: int) -> Any:
    import torchattacks

    if attack == "square":
        return torchattacks.Square(view, norm="Linf", eps=epsilon, n_queries=steps, seed=seed)
    # AutoAttack's standard version targets nine classes, whatever the number of classes; its own default seed is the
    # clock's.
    ensemble = torchattacks.AutoAttack(view, norm="Linf", eps=epsilon, n_classes=min(classes, 10), seed=seed)
    for part in ensemble._autoattack.attacks:
        if hasattr(part, "steps"):
            # torchattacks leaves its own default of 10 here; the published ensemble takes 100
            part.steps = _AUTOATTACK_STEPS
    return ensemble


def _check_target(view: Target, x: NDArray[np.float32], attack: str) -> int:
    """The number of classes, if the attack applies to this network."""
    probe = torch.from_numpy(x).to(view.device).requires_grad_(attack != "square")
    with torch.enable_grad():
        logits = view(probe)
    check_tensor(attack, view.network, logits)
    if logits.ndim != 2:
        raise UserError(f"The network must give (N, classes) scores. It gave a shape of {tuple(logits.shape)}.")
    classes = int(logits.shape[1])
    if attack == "square":
        return classes
    if not logits.requires_grad:
        parts = " Of AutoAttack's parts only Square applies to it." if attack == "autoattack" else ""
        raise UserError(
            f"{attack} needs gradients, and this network has none with respect to its input (int8 kernels have none)."
            f"{parts} Use attack='square', craft on a differentiable twin or parent, or craft_worst_case for all three."
        )
    if attack == "autoattack":
        check_autoattack(
            classes, "here, use attack='pgd' with restarts and attack='square', and take the worst of both"
        )
    return classes


def check_autoattack(classes: int, remedy: str) -> None:
    """Refuse AutoAttack on too few classes, and say which of its parts apply.

    :raises UserError: for fewer than four classes.
    """
    if classes < 4:
        raise UserError(
            f"AutoAttack needs at least 4 classes: the targeted DLR loss of its part APGD-T divides by the difference "
            f"to the fourth highest logit, and there are {classes}. Its parts APGD-CE, FAB-T and Square apply; "
            f"{remedy}."
        )


def true_labels(y: NDArray[Any] | None, images: int) -> NDArray[np.int64]:
    """True class ids (N,), from ids or one-hot rows.

    :raises UserError: for missing labels, another number of them, or rows that are not one-hot.
    """
    if y is None:
        raise UserError(
            "Robustness is measured with true labels: give y. Labels predicted by the network would count its natural "
            "errors as robust."
        )
    return check_labels(y, images, "True labels")


def gradient_norms(
    target: Any,
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
) -> NDArray[np.float32]:
    """max over pixels of |∂ loss / ∂ x| for each image, shape (N,): an exact 0 leaves a gradient attack nowhere to go.

    >>> from art_divqat.models import build_model
    >>> network = build_model("lenet5", (1, 8, 8), 10, seed=0)
    >>> gradient_norms(network, np.full((3, 1, 8, 8), 0.5), np.array([0, 1, 2])).shape
    (3,)
    """
    images, view = float_images(x, "Images"), Target(target, device, gradients=True)
    labels = true_labels(y, len(images))
    norms = [np.zeros(0, np.float32)]
    with view.attacked():
        if len(images):
            view.read_answers(torch.from_numpy(images[:_LOOKED_AT]).to(view.device))
            _check_target(view, images[:1], "pgd")
            view.set_memory_format(torch.from_numpy(images[:1]).to(view.device))
        for begin in range(0, len(images), check_int("gradient_norms", "batch_size", batch_size, 1)):
            part = torch.from_numpy(images[begin : begin + batch_size]).to(view.device).requires_grad_(True)
            with torch.enable_grad():
                y_part = torch.from_numpy(labels[begin : begin + batch_size]).to(view.device)
                loss = nn.functional.cross_entropy(view(part), y_part, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, part)
            norms.append(gradient.abs().flatten(1).amax(1).cpu().numpy())
    return np.concatenate(norms)
