"""Modes of a network: trace it so that it answers as in eval mode, and refuse one that is no function even there.

A tracer writes down what a network does in the mode that it is in, for ever. A batch norm or a dropout that is a module
stays one and obeys the mode later; all other code that reads `self.training` does not. It is traced as in eval mode.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from art_divqat._rng import isolated_random_state
from art_divqat.errors import UserError
from art_divqat.quantization.verification import check_function

# Of the answers' standard deviation: what the order of float32 sums may change, on a GPU too.
ROUNDING = 0.01
# What a class may say without computing anything else than the class above it.
_SAYS_NOTHING = {
    *("__init__", "__repr__", "extra_repr", "reset_parameters"),
    *("__module__", "__qualname__", "__doc__", "__annotations__", "__firstlineno__", "__static_attributes__"),
    *("__annotate_func__", "__parameters__", "__orig_bases__"),
}


def traceable_copy(network: nn.Module, keeps_mode: Callable[[nn.Module], bool]) -> nn.Module:
    """A copy in which only the modules that `keeps_mode` picks are in train mode, and each layer is of torch's class.

    >>> network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    >>> copied = traceable_copy(network, lambda module: isinstance(module, nn.Dropout))
    >>> [module.training for module in copied.modules()]
    [False, False, True]
    """
    copied = copy.deepcopy(network)
    for module in copied.modules():
        module.__class__ = _torch_class(type(module))
        module.training = keeps_mode(module)
        if isinstance(module, _BatchNorm) and module.weight is None and module.running_var is not None:
            # backends fold batch norm into a convolution by its weight and bias
            module.affine = True
            for name, value in (("weight", torch.ones_like), ("bias", torch.zeros_like)):
                module.register_parameter(name, nn.Parameter(value(module.running_var), requires_grad=False))
    return copied


def _torch_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The layer of torch that a class derived from it is in all but name; the class itself if it computes its own.

    Backends know layers by their very class, and `class Conv3x3(nn.Conv2d)` with nothing but an `__init__` is one.
    """
    each: Any
    for each in kind.__mro__:
        if each.__module__.startswith("torch.nn.modules."):
            # a module or a sequence of the user's is no layer
            layer = issubclass(each, nn.Module) and each.forward is not nn.Module.forward
            return each if layer and not issubclass(each, nn.Sequential) else kind
        if not vars(each).keys() <= _SAYS_NOTHING:
            break
    return kind


def spell_out_padding(name: str, convolution: _ConvNd) -> None:
    """Write padding "same" and "valid" of a convolution as numbers: neither backend reads the words.

    :raises UserError: for an even kernel, whose two sides would differ; it names the module.

    >>> convolution = nn.Conv2d(1, 1, (3, 5), padding="same", dilation=2)
    >>> spell_out_padding("stem", convolution)
    >>> convolution.padding
    (2, 4)
    """
    if not isinstance(convolution.padding, str):
        return
    sides = zip(convolution.kernel_size, convolution.dilation, strict=True)
    total = [0 if convolution.padding == "valid" else step * (size - 1) for size, step in sides]
    if any(pixels % 2 for pixels in total):
        raise UserError(
            f"Module {name!r} ({type(convolution).__name__}) has padding='same' with an even kernel, which int8 "
            "convolutions lack: put a padding module (nn.ZeroPad2d) before it, and give it padding=0."
        )
    convolution.padding = tuple(pixels // 2 for pixels in total)


def check_weights(network: nn.Module) -> None:
    """Refuse a convolution or linear layer whose weight is computed in each call, as weight norm and pruning do.

    :raises UserError: naming the module.

    >>> check_weights(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))))
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: Module '0' (ParametrizedLinear) computes its weight in each call, ...
    """
    for name, module in network.named_modules():
        if isinstance(module, (nn.Linear, _ConvNd)) and "weight" not in module._parameters:
            raise UserError(
                f"Module {name!r} ({type(module).__name__}) computes its weight in each call, as weight_norm, "
                "spectral_norm and pruning do, and int8 needs a weight that stays: make it a plain parameter first, "
                "with torch.nn.utils.parametrize.remove_parametrizations(module, 'weight'), remove_weight_norm or "
                "prune.remove."
            )


def check_eval_mode(network: nn.Module, input_shape: tuple[int, ...], device: torch.device) -> None:
    """Refuse a network that, in eval mode, answers an image otherwise the second time, or beside other images.

    It is tried on noise, dark and bright; answers that are no tensor, or not finite, are not judged here.

    :raises UserError: naming the line that draws at random or takes its statistics from the batch, where there is one,
        or as :func:`check_weights` does.

    >>> check_eval_mode(nn.Sequential(nn.Flatten(), nn.Dropout()), (1, 2, 2), torch.device("cpu"))
    """
    check_weights(network)
    copied = copy.deepcopy(network).eval()
    noise = torch.rand(4, *input_shape, generator=torch.Generator().manual_seed(0))
    brightness = torch.tensor([0.25, 0.5, 0.75, 1.0]).reshape(4, *[1] * len(input_shape))
    images = (noise * brightness).to(device)
    with torch.no_grad(), isolated_random_state("function"):
        answers = copied(images)
        if isinstance(answers, Tensor) and bool(torch.isfinite(answers).all()):
            check_function(copied, images, type(network).__name__, ROUNDING, ROUNDING)
