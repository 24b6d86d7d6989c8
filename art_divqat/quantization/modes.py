"""Modes of a network: trace it so that it answers as in eval mode, and refuse one that is no function even there.

A tracer writes down what a network does in the mode that it is in, for ever. A batch norm or a dropout that is a module
stays one and obeys the mode later; all other code that reads `self.training` does not. It is traced as in eval mode.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from art_divqat._rng import isolated_random_state
from art_divqat.quantization.verification import check_function

# Of the answers' standard deviation: what the order of float32 sums may change, on a GPU too.
ROUNDING = 0.01


def traceable_copy(network: nn.Module, keeps_mode: Callable[[nn.Module], bool]) -> nn.Module:
    """A copy in which only the modules that `keeps_mode` picks are in train mode.

    >>> network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    >>> copied = traceable_copy(network, lambda module: isinstance(module, nn.Dropout))
    >>> [module.training for module in copied.modules()]
    [False, False, True]
    """
    copied = copy.deepcopy(network)
    for module in copied.modules():
        module.training = keeps_mode(module)
    return copied


def check_eval_mode(network: nn.Module, input_shape: tuple[int, ...], device: torch.device) -> None:
    """Refuse a network that, in eval mode, answers an image otherwise the second time, or beside other images.

    It is tried on noise, dark and bright; answers that are no tensor, or not finite, are not judged here.

    :raises UserError: naming the line that draws at random or takes its statistics from the batch, where there is one.

    >>> check_eval_mode(nn.Sequential(nn.Flatten(), nn.Dropout()), (1, 2, 2), torch.device("cpu"))
    """
    copied = copy.deepcopy(network).eval()
    noise = torch.rand(4, *input_shape, generator=torch.Generator().manual_seed(0))
    brightness = torch.tensor([0.25, 0.5, 0.75, 1.0]).reshape(4, *[1] * len(input_shape))
    images = (noise * brightness).to(device)
    with torch.no_grad(), isolated_random_state("function"):
        answers = copied(images)
        if isinstance(answers, Tensor) and bool(torch.isfinite(answers).all()):
            check_function(copied, images, type(network).__name__, ROUNDING, ROUNDING)
