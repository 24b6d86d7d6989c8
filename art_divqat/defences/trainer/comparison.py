"""Comparison of an int8 network with its full-precision teacher on the same images: the accuracy lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from art_divqat.defences.trainer._preparation import SeenImages, evaluation_batch, some_of
from art_divqat.metrics.estimator import differences
from art_divqat.metrics.intervals import Interval

_MOST_IMAGES = 10_000

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AccuracyComparison:
    """Accuracy of the int8 network and of its teacher on the same images, in [0, 1], and their difference.

    :param lost: the teacher's accuracy minus the int8 network's, with its paired 95 % interval over images; negative if
        the int8 network is better.
    :param images: how many there were.
    :param source: `validation images`, or `training images` if no others were given (weaker evidence).

    >>> found = AccuracyComparison(0.93, 0.877, Interval(0.053, 0.019, 0.088), 300, "validation images")
    >>> found.exceeds(0.02), found.exceeds(0.06)
    (True, False)
    >>> str(found)
    "accuracy 0.877 on 300 validation images, its teacher's 0.930: lost 0.053 (95 % interval 0.019 to 0.088)"
    >>> str(AccuracyComparison(0.5, 0.6, Interval(-0.1, -0.125, 0.025), 300, "training images"))
    "accuracy 0.600 on 300 training images, its teacher's 0.500: gained 0.100 (95 % interval -0.025 to 0.125)"
    """

    teacher: float
    quantized: float
    lost: Interval
    images: int
    source: str

    def exceeds(self, tolerance: float) -> bool:
        """Whether more than `tolerance` was lost, and the interval excludes 0."""
        return self.lost.mean > tolerance and self.lost.low is not None and self.lost.low > 0

    def __str__(self) -> str:
        mean, low, high = self.lost.mean, self.lost.low, self.lost.high
        word = "lost"
        if mean < 0:
            word, mean = "gained", -mean
            low, high = (None if high is None else -high), (None if low is None else -low)
        interval = "" if low is None or high is None else f" (95 % interval {low:.3f} to {high:.3f})"
        return (
            f"accuracy {self.quantized:.3f} on {self.images} {self.source}, its teacher's {self.teacher:.3f}: "
            f"{word} {mean:.3f}{interval}"
        )


def compare_accuracy(
    teacher: Network, int8: Network, images: SeenImages, labels: Tensor, source: str = "validation images"
) -> AccuracyComparison:
    """Query both networks with the same images, at most 10,000 evenly spaced ones. Nothing is drawn at random.

    :param teacher: preprocessed images to logits (N, classes), on the device of `images`.
    :param int8: likewise, on the CPU.
    :param labels: class ids (N,).

    >>> always = lambda x: torch.eye(2)[[0] * len(x)]
    >>> compare_accuracy(always, always, torch.zeros(4, 1, 2, 2), torch.tensor([0, 0, 0, 1])).lost.mean
    0.0
    """
    images, labels = some_of(images, _MOST_IMAGES), some_of(labels, _MOST_IMAGES).cpu()
    size = evaluation_batch(images)
    with torch.no_grad():
        known = torch.cat([teacher(part).argmax(dim=1).cpu() for part in images.split(size)])
        served = torch.cat([int8(part.cpu()).argmax(dim=1) for part in images.split(size)])
    hits = np.stack([(answers == labels).numpy() for answers in (known, served)])
    (effect,) = differences(hits[None, :, None, :])
    rates = hits.mean(axis=1)
    lost = Interval(float(rates[0] - rates[1]), effect.low, effect.high)
    return AccuracyComparison(float(rates[0]), float(rates[1]), lost, len(labels), source)
