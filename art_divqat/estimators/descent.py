"""Descent: optimiser steps on a loss, in float32 or under bfloat16 autocast, optionally as a CUDA graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from art_divqat.errors import UserError

Loss = Callable[..., Tensor]

# a run of fewer steps is over before a graph has paid for itself
STEPS_WORTH_A_GRAPH = 100
_WARM_UP_PASSES = 3


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a network computes: bfloat16 if the recipe says so, else torch's default."""
    # no cache: a step reads every weight once, and a cache is not to be recorded into a graph
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


@contextlib.contextmanager
def refusing_to_wait() -> Iterator[None]:
    """A context in which any operation that waits for the GPU raises a `RuntimeError`.

    A failed recording leaves torch's GPU generator unusable; this finds the cause of a failure before recording.
    """
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def not_recordable(error: Exception) -> UserError:
    """The message for a network whose passes cannot be recorded as a CUDA graph."""
    why = next(iter(str(error).splitlines()), type(error).__name__)
    return UserError(f"This network cannot be recorded as a CUDA graph ({why}): train it without cuda_graphs.")


class Descent:
    """One step down a loss at every call.

    :param loss: of the inputs of a call, a scalar.
    :param network: the network whose parameters the optimiser updates.
    :param precision: of the passes: `float32` or `bfloat16`; weights, gradients and updates are always float32.
    :param graph: on a GPU, record the passes over inputs of the shapes of the first call, and replay them.
    :param steps: the planned number of steps; a graph is recorded only if it pays off.

    >>> network = nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    >>> descend = Descent(lambda x: network(x).square().mean(), network, optimizer)
    >>> x = torch.ones(4, 2)
    >>> losses = [descend(x) for _ in range(3)]
    >>> bool(losses[0] > losses[1] > losses[2])
    True
    """

    def __init__(
        self,
        loss: Loss,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        precision: str = "float32",
        graph: bool = False,
        steps: int = 0,
    ) -> None:
        self._loss = loss
        self._network = network
        self._optimizer = optimizer
        self._precision = precision
        self._wants_graph = graph and steps >= STEPS_WORTH_A_GRAPH
        self._graph: LossGraph | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The loss before the step, detached; it may be overwritten by the next call."""
        if self._wants_graph and inputs[0].is_cuda:
            self._graph, self._wants_graph = LossGraph(self.loss, self._network, inputs), False
        if self._graph is not None and self._graph.takes(inputs):
            value = self._graph(*inputs)
        else:
            self._optimizer.zero_grad(set_to_none=True)
            loss = self.loss(*inputs)
            loss.backward()
            value = loss.detach()
        self._optimizer.step()
        return value

    def loss(self, *inputs: Tensor) -> Tensor:
        """The loss of the inputs, in the precision of the passes."""
        with autocast(self._precision, inputs[0].device):
            return self._loss(*inputs)

    def close(self) -> None:
        """Release the graph, and the gradients, which are in its memory."""
        if self._graph is not None:
            self._graph = None
            self._optimizer.zero_grad(set_to_none=True)


class LossGraph:
    """A loss and its gradients with respect to a network's parameters, recorded once as a CUDA graph and replayed.

    For small batches, starting the kernels takes the CPU longer than running them takes the GPU; a replay starts all of
    them at once. The results are those of the recorded passes. Recording itself does not change weights or batch norm
    statistics.

    :param loss: of the inputs, a scalar; nothing in it may wait for the GPU.
    :param inputs: examples, whose shapes and types every later call has.
    :raises UserError: if the passes cannot be recorded.
    """

    def __init__(self, loss: Loss, network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._call = loss
        self._inputs = tuple(given.detach().clone() for given in inputs)
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        statistics = [(buffer, buffer.clone()) for buffer in network.buffers()]
        try:
            with torch.cuda.device_of(self._inputs[0]):
                self._warm_up()
                with torch.no_grad():
                    for buffer, value in statistics:
                        buffer.copy_(value)
                self._record()
        except RuntimeError as error:
            raise not_recordable(error) from error
        self._gradients = [p.grad for p in self._parameters]

    def takes(self, inputs: tuple[Tensor, ...]) -> bool:
        """Whether the inputs have the shapes that were recorded."""
        return all(own.shape == given.shape for own, given in zip(self._inputs, inputs, strict=True))

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The loss of the inputs, which the next call overwrites; the parameters have their gradients afterwards."""
        with torch.no_grad():
            for own, given in zip(self._inputs, inputs, strict=True):
                own.copy_(given)
        self._replay()
        # whoever computed something else in between has put other gradients there
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._value

    def _passes(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
        loss = self._call(*self._inputs)
        loss.backward()
        self._value = loss.detach()

    def _warm_up(self) -> None:
        """Passes on a stream beside the usual one, in which libraries make what a recording may not."""
        self._stream = torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP_PASSES):
                self._passes()
            with refusing_to_wait():
                self._passes()
        torch.cuda.current_stream().wait_stream(self._stream)

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        for parameter in self._parameters:
            parameter.grad = None
        with torch.cuda.graph(graph, stream=self._stream):
            self._passes()
        self._replay: Callable[[], None] = graph.replay
