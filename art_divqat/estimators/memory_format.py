"""Memory layouts of networks: on a CPU convolutions run faster with channels last."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def fastest_layout(
    network: nn.Module, two_images: Tensor, logits: Callable[[Tensor], Tensor] | None = None
) -> torch.memory_format:
    """Channels last on the CPU, where convolutions train a quarter faster in it, if the network can run so.

    A network that calls `view` on the output of a convolution cannot.

    :param logits: how the network is called, if it is not called itself.
    """
    if two_images.device.type != "cpu":
        return torch.contiguous_format
    try:
        network.to(memory_format=torch.channels_last).eval()
        with torch.no_grad():
            (logits or network)(two_images)
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last


def lay_out(network: nn.Module, optimizer: torch.optim.Optimizer, layout: torch.memory_format) -> None:
    """Weights and the optimiser's averages in one layout: fused AdamW on the CPU goes wrong, silently, on a mixture."""
    network.to(memory_format=layout)  # type: ignore[call-overload]
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.ndim == 4:
                state[name] = value.contiguous(memory_format=layout)
