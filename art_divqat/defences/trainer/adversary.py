"""PGD adversary of quantization-aware training: perturb batches on the fake-quantized network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_numpy import (
    ProjectedGradientDescentCommon,
)
from torch import Tensor
from torch.nn import functional

from art_divqat._validation import check_bool, check_float, check_int, parameter_error
from art_divqat.errors import UserError


@dataclass(frozen=True)
class PixelBounds:
    """The box of valid images after standardisation, and its sides, ε = 1 in there; broadcast over (N, C, H, W)."""

    low: Tensor
    high: Tensor
    unit: Tensor

    def to(self, device: torch.device) -> PixelBounds:
        """The same on a device."""
        return PixelBounds(self.low.to(device), self.high.to(device), self.unit.to(device))


@dataclass(frozen=True)
class PGDAdversary:
    """x ← clip(x + step · sign ∇ CE, x ± eps), `steps` times (Madry et al., 2018; arXiv 1706.06083).

    Runs in torch on the fake-quantized network, in eval mode with frozen observers, about twice as fast as ART's.

    :param eps: radius of the L∞ ball, as a share of the range of pixels; in (0, 1]. For 8 of 255 grey levels 8 / 255.
    :param step: size of a step, likewise; None takes 2.5 · eps / steps, which reaches the edge of the ball.
    :param steps: at least 1.
    :param random_start: start from a uniform point of the ball.
    :raises UserError: for values outside these ranges.

    >>> PGDAdversary(eps=0.1, steps=5).step_size
    0.05
    """

    eps: float = 0.1
    step: float | None = None
    steps: int = 7
    random_start: bool = True

    def __post_init__(self) -> None:
        check_float(self, "eps", self.eps, 0, 1, closed="right")
        check_int(self, "steps", self.steps, 1)
        check_bool(self, "random_start", self.random_start)
        if self.step is not None:
            check_float(self, "step", self.step, 0, 1, closed="right")

    @property
    def step_size(self) -> float:
        """The size of a step."""
        return 2.5 * self.eps / self.steps if self.step is None else self.step

    def perturb(
        self,
        network: Callable[[Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        bounds: PixelBounds,
    ) -> Tensor:
        """Adversarial examples within `bounds`, of the shape of `images`; no parameter gradients are left behind.

        :param network: images to logits (N, classes).
        """
        eps, step, low, high = self.eps * bounds.unit, self.step_size * bounds.unit, bounds.low, bounds.high
        start = images
        if self.random_start:
            noise = torch.rand(images.shape, generator=generator).to(images.device)
            start = images + eps * (2 * noise - 1)
        adversarial = start.clamp(low, high)
        for _ in range(self.steps):
            adversarial.requires_grad_()
            loss = functional.cross_entropy(network(adversarial), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, adversarial)
            with torch.no_grad():
                moved = adversarial + step * gradient.sign()
                adversarial = (images + (moved - images).clamp(-eps, eps)).clamp(low, high)
        return adversarial.detach()


def as_adversary(adversary: object, pixels: tuple[Any, Any] | None = None) -> PGDAdversary | None:
    """The settings of an ART PGD attack as a :class:`PGDAdversary`; a `PGDAdversary` or None is returned as it is.

    :param pixels: the classifier's least and greatest pixel, in whose units ART's radius is; None for [0, 1].
    :raises UserError: for any other attack, a norm other than L∞, a targeted attack, or radii that differ by pixel.
    """
    if adversary is None or isinstance(adversary, PGDAdversary):
        return adversary
    if not isinstance(adversary, (ProjectedGradientDescent, ProjectedGradientDescentCommon)):
        raise parameter_error(
            "QATTrainer", "adversary", "a PGDAdversary, an ART ProjectedGradientDescent or None", adversary
        )
    if adversary.norm not in (np.inf, "inf") or adversary.targeted:
        raise UserError("Only untargeted L∞ PGD can run inside the training loop: use norm='inf', targeted=False.")
    sides = np.unique(1.0 if pixels is None else np.subtract(*reversed(pixels), dtype=np.float64))
    if sides.size > 1:
        raise UserError("An ART attack's radius is in units of pixels, which differ here: give a PGDAdversary instead.")
    return PGDAdversary(
        eps=float(np.max(adversary.eps) / sides[0]),
        step=float(np.max(adversary.eps_step) / sides[0]),
        steps=int(adversary.max_iter),
        random_start=adversary.num_random_init > 0,
    )
