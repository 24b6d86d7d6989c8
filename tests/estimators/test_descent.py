"""Descent: a recorded step is the step; a GPU's recording is stood in for by passes into the same memory."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from art_divqat.errors import UserError
from art_divqat.estimators import descent
from art_divqat.estimators.descent import Descent, LossGraph, autocast

CPU = torch.device("cpu")


class Played(LossGraph):
    """Recorded on the CPU: a recording computes nothing, and a replay writes where the recording has written."""

    def _warm_up(self) -> None:
        for _ in range(3):
            self._passes()

    def _record(self) -> None:
        statistics = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        self._passes()
        for buffer, value in statistics:
            buffer.copy_(value)
        loss, gradients = self._value, [p.grad for p in self._parameters]
        loss.fill_(torch.nan)

        def replay() -> None:
            self._passes()
            with torch.no_grad():
                loss.copy_(self._value)
                for own, parameter in zip(gradients, self._parameters, strict=True):
                    own.copy_(parameter.grad)
            self._value = loss

        self._replay = replay

    def __init__(self, loss: Callable[..., Tensor], network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.network = network
        super().__init__(loss, network, inputs)


class Broken(LossGraph):
    def _warm_up(self) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")


def built() -> tuple[nn.Module, Callable[..., Tensor], torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(network(x), y)

    return network, loss, optimizer


def test_replays_are_steps_and_other_shapes_in_between_disturb_none() -> None:
    batches = [(torch.randn(n, 1, 4, 4), torch.arange(n) % 2) for n in (4, 4, 3, 4, 2, 4)]
    network, loss, optimizer = built()
    descend = Descent(loss, network, optimizer)
    descend._graph = Played(descend.loss, network, batches[0])
    losses = [float(descend(*batch)) for batch in batches]
    plain_network, plain_loss, plain_optimizer = built()
    plain = Descent(plain_loss, plain_network, plain_optimizer)
    assert losses == [float(plain(*batch)) for batch in batches]
    for ours, other in zip(network.state_dict().values(), plain_network.state_dict().values(), strict=True):
        assert torch.equal(ours, other)
    descend.close()
    assert all(p.grad is None for p in network.parameters())


def test_recording_leaves_weights_and_statistics_alone() -> None:
    network, loss, _ = built()
    before = copy.deepcopy(network.state_dict())
    Played(loss, network, (torch.randn(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64)))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_what_cannot_be_recorded_is_said_in_one_line() -> None:
    network, loss, _ = built()
    with pytest.raises(UserError, match=r"not permitted when stream is capturing\): train it without cuda_graphs\.$"):
        Broken(loss, network, (torch.zeros(1),))


def test_the_cpu_records_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: object) -> None:
        raise AssertionError

    monkeypatch.setattr(descent, "LossGraph", never)
    network, loss, optimizer = built()
    Descent(loss, network, optimizer, graph=True, steps=1000)(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]))


def test_bfloat16_is_of_the_passes_alone() -> None:
    network, _, optimizer = built()
    seen = []

    def loss(x: Tensor) -> Tensor:
        logits = network(x)
        seen.append(logits.dtype)
        return logits.float().square().mean()

    Descent(loss, network, optimizer, precision="bfloat16")(torch.randn(2, 1, 4, 4))
    Descent(loss, network, optimizer)(torch.randn(2, 1, 4, 4))
    assert seen == [torch.bfloat16, torch.float32]
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in network.parameters())
    assert not torch.is_autocast_enabled("cpu")


def test_float32_is_float32_within_somebody_elses_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16), autocast("float32", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
