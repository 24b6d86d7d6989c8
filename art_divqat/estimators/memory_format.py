"""Memory formats of networks: probe and set channels last, which makes convolutions faster on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from art_divqat.estimators.conventions import keeping_modes


def probe_memory_format(
    network: nn.Module, two_images: Tensor, logits: Callable[[Tensor], Tensor] | None = None
) -> torch.memory_format:
    """Find the memory format in which a network runs fastest, without changing the network.

    Channels last, if the network can run in it, on the CPU (convolutions train a quarter faster) and under autocast on
    a GPU (whose matrix units use it). A network that calls `view` on a convolution's output cannot. Contiguous
    otherwise.

    :param network: it is run once in evaluation mode, without gradients; its modes and its tensors are the same after.
    :param two_images: a batch that it takes, on its device.
    :param logits: how the network is called, if it is not called itself.

    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    >>> probe_memory_format(network, torch.zeros(2, 3, 8, 8))
    torch.channels_last
    >>> network.training, network[0].weight.is_contiguous()
    (True, True)
    """
    device = two_images.device.type
    if device != "cpu" and not (device == "cuda" and torch.is_autocast_enabled(device)):
        return torch.contiguous_format
    with _restored(network):
        try:
            set_memory_format(network, torch.channels_last)
            network.eval()
            with torch.no_grad():
                (logits or network)(two_images)
        except RuntimeError:
            return torch.contiguous_format
    return torch.channels_last


def set_memory_format(
    network: nn.Module, memory_format: torch.memory_format, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Convert a network's weights, and an optimiser's averages of them, to one memory format.

    With mixed formats, fused AdamW on the CPU silently computes wrong results: always pass the optimiser if there is
    one.
    """
    network.to(memory_format=memory_format)  # type: ignore[call-overload]
    for state in optimizer.state.values() if optimizer is not None else ():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.ndim == 4:
                state[name] = value.contiguous(memory_format=memory_format)


@contextlib.contextmanager
def _restored(network: nn.Module) -> Iterator[None]:
    """Whatever happens inside, every module has its mode and every tensor its memory again afterwards."""
    tensors = [*network.parameters(), *network.buffers()]
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    memory = [(tensor, tensor.data) for tensor in [*tensors, *gradients]]
    buffers = [(module, name, buffer) for module in network.modules() for name, buffer in module._buffers.items()]
    with keeping_modes(network):
        try:
            yield
        finally:
            for tensor, data in memory:
                tensor.data = data
            for module, name, buffer in buffers:
                module._buffers[name] = buffer
