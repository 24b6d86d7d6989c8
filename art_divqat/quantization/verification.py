"""Verification of a quantized network: it is a function of its image, and the function that was trained."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from art_divqat.errors import UserError
from art_divqat.quantization.user_code import LineWatch

Network = Callable[[Tensor], Tensor]

# Images of the check of being a function: enough for two halves.
FEW = 8
# Rounding of a value beside a quantization step is all that neighbours in the batch may change.
BATCH_TOLERANCE = 0.05
ACCURACY_TOLERANCE = 0.05


def check_function(
    network: Network, images: Tensor, name: str, call_tolerance: float = 0.0, batch_tolerance: float = BATCH_TOLERANCE
) -> None:
    """Refuse a network whose answer to an image is not decided by the image: f(x) = f(x), f([a, b]) = [f(a), f(b)].

    Two calls must agree bit for bit; a batch and its halves to 1/20 of the standard deviation of the answers, on
    average, because a value beside a quantization step may be rounded otherwise.

    :param images: a batch that the network takes; the first eight are used.
    :param name: what the message calls the network, such as `The int8 network`.
    :param call_tolerance: how far two calls may be apart at most, in standard deviations of the answers.
    :param batch_tolerance: how far a batch and its halves may be apart on average, in the same unit.
    :raises UserError: for a network that raises, answers NaN, or is no function; the message says by how much, and
        names the line of the network that makes it none, if it has lines.

    >>> check_function(lambda x: x * torch.rand(1), torch.ones(4, 3), "This network")
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: This network is not a function: two answers to the same images differ by ...
    """
    images = images[:FEW]
    with torch.no_grad():
        try:
            first, again = network(images), network(images)
            halves = first if len(images) < 2 else torch.cat([network(part) for part in images.tensor_split(2)])
        except (RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise UserError(f"{name} cannot be run ({reason}): try the other backend.") from error
    if not bool(torch.isfinite(first).all()):
        raise UserError(f"{name} answers with values that are not finite: lower the learning rate and train again.")
    scale = spread(first)
    if not torch.equal(first, again) and float((first - again).abs().max()) > call_tolerance * scale:
        raise UserError(
            f"{name} is not a function: two answers to the same images differ by up to "
            f"{float((first - again).abs().max()):.2g}. Something random is on in evaluation, such as dropout"
            f"{_watched(network, images).random}: pass training=self.training to it, or use the module (nn.Dropout)."
        )
    if float((first - halves).abs().mean()) > batch_tolerance * scale:
        moved = float((first - halves).abs().max())
        watch = _watched(network, images)
        cause = (
            f"Something reads statistics of the batch in evaluation, such as a batch norm{watch.batch}: pass "
            "training=self.training, or use nn.BatchNorm2d with running statistics."
        )
        if watch.values and not watch.batch:
            cause = f"It reads a value of the whole batch{watch.values[0]}: decide for each image, with torch.where."
        raise UserError(
            f"{name} is not a function of the image: its answer moves by up to {moved:.2g} with the neighbours in the "
            f"batch. {cause}"
        )


def check_fidelity(int8: Network, twin: Network, images: Tensor, labels: Tensor | None = None) -> None:
    """Refuse an int8 network that is not the one that was trained: its fake-quantized twin.

    With labels, the accuracy may fall by 0.05 and three standard errors, √(images that changed side) / N each; without,
    the root mean square of the difference may be the standard deviation of the twin's answers.

    :param images: of shape (N, C, H, W), on the CPU.
    :param labels: class ids (N,), or None.
    :raises UserError: naming both accuracies, or the difference.
    """
    with torch.no_grad():
        served, trained = (torch.cat([network(part) for part in images.split(128)]) for network in (int8, twin))
    if labels is None:
        difference = float((served - trained).square().mean().sqrt())
        if difference > spread(trained):
            raise UserError(
                f"The int8 network's answers differ from the fake-quantized network's by {difference:.2g} (root mean "
                f"square), more than these vary ({spread(trained):.2g}): give calibration images like those it will "
                "see, train it with QATTrainer, or try the other backend."
            )
        return
    right, was_right = served.argmax(dim=1) == labels, trained.argmax(dim=1) == labels
    lost = int(was_right.sum()) - int(right.sum())
    changed = int((right != was_right).sum())
    if lost > ACCURACY_TOLERANCE * len(images) + 3 * math.sqrt(changed):
        raise UserError(
            f"The int8 network's accuracy is {float(right.float().mean()):.3f} on {len(images)} images where the "
            f"fake-quantized network has {float(was_right.float().mean()):.3f}: train more epochs with a larger "
            "frozen_fraction, or try the other backend."
        )


def _watched(network: Network, images: Tensor) -> LineWatch:
    with torch.no_grad(), LineWatch() as watch:
        network(images)
    return watch


def spread(answers: Tensor) -> float:
    """Standard deviation of all answers; above the rounding of float32 where they are all alike."""
    return float(answers.std(correction=0)) + 1e-5 * (1 + float(answers.abs().max()))
