"""A hidden layer inserted before the last one; it changes no answer until it is trained."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from art_divqat._rng import torch_generator
from art_divqat._types import Shape
from art_divqat.errors import UserError
from art_divqat.models.registry import build_model

_UNITS = 512


def last_linear(network: nn.Module) -> str:
    """The name of the last linear layer inside a network.

    :raises UserError: where there is none.
    """
    names = [name for name, module in network.named_modules() if type(module) is nn.Linear and name]
    if not names:
        raise UserError("The network has no nn.Linear inside it, before which a hidden layer could stand: head='kept'.")
    return names[-1]


def with_hidden_layer(network: nn.Module, seed: int = 0, mean: Tensor | None = None) -> nn.Module:
    """W₂ relu(W₁ h + b₁) for the last linear layer W h + b, with equal answers: z = relu(z) − relu(−z).

    Of 512 units, or four times as many as there are logits if that is more, two a logit hold the layer that was there;
    the others are random and have no weight yet. `network` is left as it was.

    :param mean: of h over images, (inputs,); the random units are then of h less this mean.
    :raises UserError: for a network without a linear layer inside it.

    >>> x, network = torch.rand(2, 6), nn.Sequential(nn.ReLU(), nn.Linear(6, 3))
    >>> deeper = with_hidden_layer(network)
    >>> bool(torch.allclose(deeper(x), network(x), atol=1e-6)), deeper[1][0].out_features
    (True, 512)
    """
    network = copy.deepcopy(network)
    name = last_linear(network)
    network.set_submodule(name, _in_two(network.get_submodule(name), seed, mean))
    return network


def _in_two(last: nn.Module, seed: int, mean: Tensor | None) -> nn.Sequential:
    assert isinstance(last, nn.Linear)
    logits, width = last.weight.shape
    units = max(_UNITS, 4 * logits)
    first = nn.utils.skip_init(nn.Linear, width, units, device=str(last.weight.device))
    second = nn.utils.skip_init(nn.Linear, units, logits, device=str(last.weight.device))
    bound = (6 / width) ** 0.5
    generator = torch_generator("hidden layer", seed)
    with torch.no_grad():
        first.weight.copy_(torch.empty(units, width).uniform_(-bound, bound, generator=generator))
        for module in (first.bias, second.weight, second.bias):
            module.zero_()
        if mean is not None:
            first.bias.sub_(first.weight @ mean.to(first.weight))
        for sign, start in ((1, 0), (-1, logits)):
            rows = slice(start, start + logits)
            first.weight[rows] = sign * last.weight
            first.bias[rows] = 0 if last.bias is None else sign * last.bias
            second.weight[:, rows] = sign * torch.eye(logits)
    return nn.Sequential(first, nn.ReLU(), second)


def build_hidden(model: str, input_shape: Shape, nb_classes: int) -> nn.Module:
    """A network of :func:`build_model` with a hidden layer before its last one."""
    seed = int(torch.randint(2**62, ()))
    return with_hidden_layer(build_model(model, input_shape, nb_classes, seed=seed), seed)
