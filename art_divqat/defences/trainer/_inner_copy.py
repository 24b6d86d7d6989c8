"""Copy of a network in bfloat16, on which the inner attack of adversarial training takes its gradients."""

from __future__ import annotations

import contextlib
import copy
from typing import cast

import torch
from torch import Tensor, nn

from art_divqat.estimators.descent import not_recordable, refusing_to_wait


class InnerCopy:
    """A network's copy in bfloat16, channels last, in evaluation mode, without gradients of its weights.

    :param network: what is copied; its tensors must stay the same objects while the copy is used.

    >>> network = nn.Conv2d(1, 2, 3)
    >>> inner = InnerCopy(network)
    >>> _ = nn.init.zeros_(network.weight), nn.init.ones_(network.bias)
    >>> inner.follow()
    >>> inner(torch.zeros(1, 1, 3, 3)).flatten()
    tensor([1., 1.])
    """

    def __init__(self, network: nn.Module) -> None:
        own = copy.deepcopy(network).requires_grad_(False).eval()
        own.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._own: nn.Module = own.to(torch.bfloat16)
        pairs = list(zip(_tensors(self._own), _tensors(network), strict=True))
        self._numbers = [(a, b) for a, b in pairs if b.is_floating_point()]
        self._others = [(a, b) for a, b in pairs if not b.is_floating_point()]
        self._recorded: nn.Module | None = None
        self._recorded_shape: torch.Size | None = None

    def follow(self) -> None:
        """Take over the network's present weights and statistics."""
        with torch.no_grad():
            torch._foreach_copy_([a for a, _ in self._numbers], [b for _, b in self._numbers])
            for own, theirs in self._others:
                own.copy_(theirs)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits, float32."""
        x = x.to(torch.bfloat16)
        recorded = self._recorded is not None and x.requires_grad and x.shape == self._recorded_shape
        answer: Tensor = self._recorded(x) if recorded and self._recorded is not None else self._own(x)
        return answer.float()

    def record(self, example: Tensor) -> None:
        """From here on, replay a CUDA graph for batches of the example's shape that want gradients.

        :param example: on a GPU, in the memory format that batches come in.
        :raises UserError: if the network cannot be recorded.
        """
        # in a module of its own: recording replaces its `forward`, which other shapes still need
        called = _Called(self._own).eval()
        batch = example.detach().to(torch.bfloat16).clone().requires_grad_(True)
        try:
            with torch.cuda.device_of(batch):
                self._try(batch)
                self._recorded = cast(nn.Module, torch.cuda.make_graphed_callables(called, (batch,)))
        except (RuntimeError, AssertionError) as error:
            raise not_recordable(error) from error
        self._recorded_shape = batch.shape

    def _try(self, batch: Tensor) -> None:
        """Both passes, beforehand: the first may wait for what libraries make once, the second for nothing."""
        for context in (contextlib.nullcontext(), refusing_to_wait()):
            with context:
                self._own(batch).sum().backward()
        batch.grad = None


class _Called(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
