"""Training a linear layer W h + b as if it were W (h − μ) + b: the part common to all images does not affect it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from art_divqat.defences.trainer._preparation import SeenImages, evaluation_batch, some_of

_IMAGES = 256
_BATCH = 64


def mean_before(layer: str, network: nn.Module, images: SeenImages) -> Tensor:
    """The mean input of a layer over some preprocessed images; the network does not change."""
    parts: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_pre_hook(
        lambda _, inputs: parts.append(inputs[0].flatten(0, -2))
    )
    training = network.training
    try:
        with torch.no_grad():
            chosen = some_of(images, _IMAGES)
            for part in chosen.split(evaluation_batch(chosen, _BATCH)):
                network.eval()(part)
    finally:
        handle.remove()
        network.train(training)
    return torch.cat(parts).mean(0)


class Centring:
    """Steps of any optimizer on (W, b), taken on (W, c) of W (h − μ) + c, which is the same layer for b = c − W μ.

    Features after a ReLU are all positive, and their common part is larger than the differences between images. A
    gradient step on both would move the answers to everything at once. ∂L/∂W of the centred layer is ∂L/∂W − ∂L/∂b μᵀ;
    after the step, b is adjusted to W.

    :param weight: W, (outputs, inputs).
    :param bias: b, (outputs,).
    :param mean: μ, (inputs,): of the layer's inputs.

    >>> layer = nn.Linear(2, 1)
    >>> centring, h = Centring(layer.weight, layer.bias, torch.tensor([3.0, 1.0])), torch.tensor([[3.0, 1.0]])
    >>> before = layer(h).item()
    >>> layer(h + 1).sum().backward()
    >>> centring.step(torch.optim.SGD([layer.weight], lr=1.0))  # W alone moves
    >>> abs(layer(h).item() - before) < 1e-6
    True
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter, mean: Tensor) -> None:
        self.weight, self.bias, self.mean = weight, bias, mean

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """A step with the gradient of the centred layer; then b is adjusted to W."""
        assert self.weight.grad is not None
        assert self.bias.grad is not None
        self.weight.grad.sub_(torch.outer(self.bias.grad, self.mean))
        before = self.weight.detach().clone()
        optimizer.step()
        with torch.no_grad():
            self.bias.sub_((self.weight - before) @ self.mean)
