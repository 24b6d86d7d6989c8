"""`craft(classifier, x, y, attack="pgd", epsilon=0.2)`: adversarial examples for measuring robustness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from art_divqat._rng import isolated_random_state, torch_generator
from art_divqat._validation import check_choice, check_float, check_int
from art_divqat.attacks.evasion.pgd import pgd
from art_divqat.errors import UserError

ATTACKS = ("pgd", "fgsm", "autoattack")
_FEWEST_CLASSES_OF_AUTOATTACK = 4


def default_step_size(epsilon: float, steps: int) -> float:
    """2.5 ε / steps, at most ε: reaches the edge of the ball from any start (Madry et al., 2018)."""
    return min(epsilon, 2.5 * epsilon / steps)


def check_epsilon(epsilon: Any) -> float:
    """Return ε as a float in [0, 1].

    :raises UserError: for anything else; a number above 1 is taken for 0–255 units, and the sentence says so.

    >>> check_epsilon(8)
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: ε is in units of [0, 1] pixels and must be in [0, 1]. Got 8; 8 of 255 is 0.0314.
    """
    if isinstance(epsilon, int | float) and not isinstance(epsilon, bool) and 1 < epsilon <= 255:
        raise UserError(
            f"ε is in units of [0, 1] pixels and must be in [0, 1]. Got {epsilon:g}; {epsilon:g} of 255 is "
            f"{epsilon / 255:.4f}."
        )
    return check_float("craft", "epsilon", epsilon, 0, 1)


def craft(
    target: Any,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    *,
    attack: str = "pgd",
    epsilon: float,
    steps: int = 20,
    step_size: float | None = None,
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Examples x' with ‖x' − x‖∞ ≤ ε in [0, 1] that are to be given another label than the true one.

    - `pgd`: projected gradient descent from one random start, stopping for each image once it is misclassified.
    - `fgsm`: one step of size ε (Goodfellow et al., 2015), by torchattacks.
    - `autoattack`: the standard ensemble (Croce & Hein, 2020), by torchattacks.

    :param target: a logit-valued `torch.nn.Module`, or an ART `PyTorchClassifier` around one.
    :param x: images (N, C, H, W), float32 in [0, 1].
    :param y: true class ids (N,).
    :param steps: of `pgd`; ignored by the others.
    :param step_size: of `pgd`; :func:`default_step_size` if not given.
    :raises UserError: for ε outside [0, 1], steps that cannot reach the edge of the ball, a network without gradients,
        or AutoAttack on fewer than four classes.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> craft(network, np.zeros((5, 1, 2, 2), np.float32), np.zeros(5, np.int64), epsilon=0.1).shape
    (5, 1, 2, 2)
    """
    check_choice("craft", "attack", attack, ATTACKS)
    epsilon = check_epsilon(epsilon)
    check_int("craft", "steps", steps, 1)
    size = default_step_size(epsilon, steps) if step_size is None else check_float("craft", "step_size", step_size, 0)
    if attack == "pgd" and steps * size < epsilon:
        raise UserError(
            f"{steps} steps of {size:g} cannot reach the edge of a ball of ε = {epsilon:g}: take more or larger steps."
        )
    if len(x) != len(y) or np.asarray(y).ndim != 1:
        raise UserError(f"Evasion needs the true class id of every image. Got {len(x)} images, labels {np.shape(y)}.")
    if epsilon == 0 or len(x) == 0:
        return np.array(x, dtype=np.float32)
    network: nn.Module = target if isinstance(target, nn.Module) else target.model
    parameter = next(network.parameters(), None)
    if parameter is None:
        raise UserError("This network has no parameters to take gradients through (an int8 one?): attack its twin.")
    was_training = network.training
    network.eval()
    parts = []
    generator = torch_generator("evasion", seed)
    try:
        with isolated_random_state("evasion", attack, seed):
            for start in range(0, len(x), batch_size):
                images = torch.from_numpy(np.ascontiguousarray(x[start : start + batch_size], dtype=np.float32))
                labels = torch.from_numpy(np.ascontiguousarray(y[start : start + batch_size], dtype=np.int64))
                images, labels = images.to(parameter.device), labels.to(parameter.device)
                if attack == "pgd":
                    out = pgd(
                        network, images, labels, epsilon=epsilon, steps=steps, step_size=size, generator=generator
                    )
                else:
                    out = _torchattack(attack, network, images, labels, epsilon, seed)
                parts.append(out.detach().cpu().numpy())
                if progress is not None:
                    progress(min(start + batch_size, len(x)), len(x))
    finally:
        network.train(was_training)
    return np.concatenate(parts).astype(np.float32)


def _torchattack(attack: str, network: nn.Module, x: Tensor, y: Tensor, epsilon: float, seed: int) -> Tensor:
    import torchattacks

    if attack == "fgsm":
        out: Tensor = torchattacks.FGSM(network, eps=epsilon)(x, y)
        return out
    with torch.no_grad():
        classes = network(x[:1]).shape[1]
    if classes < _FEWEST_CLASSES_OF_AUTOATTACK:
        raise UserError(
            f"AutoAttack's targeted parts (APGD-T, FAB-T) need at least 4 classes, this network has {classes}: use PGD."
        )
    # torchattacks seeds AutoAttack's parts from the clock unless it is told
    return torchattacks.AutoAttack(network, norm="Linf", eps=epsilon, version="standard", n_classes=classes, seed=seed)(
        x, y
    )
