"""Probing and setting the memory format of a network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from art_divqat.estimators.memory_format import probe_memory_format, set_memory_format

TWO = torch.zeros(2, 3, 8, 8)


class Viewing(nn.Module):
    """Takes `view` of what a convolution gives, which channels-last memory refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.register_buffer("kernel", torch.ones(4, 4, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(self.convolution(x), self.kernel).view(len(x), -1)


class Refusing(Viewing):
    """Like an exported graph, it has no evaluation mode."""

    def train(self, mode: bool = True) -> Refusing:
        if not mode:
            raise NotImplementedError("no eval() here")
        return super().train(mode)


class Failing(Viewing):
    """Fails in a way that has nothing to do with memory."""

    def forward(self, x: Tensor) -> Tensor:
        raise TypeError("wrong")


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))


def state(network: nn.Module) -> dict[str, tuple[int, int, tuple[int, ...]]]:
    """Every tensor's identity, address and strides, gradients included."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    tensors |= {f"{name}.grad": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {name: (id(tensor), tensor.data_ptr(), tensor.stride()) for name, tensor in tensors.items()}


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (plain, torch.channels_last),
        (Viewing, torch.contiguous_format),
        (Refusing, torch.contiguous_format),
        (Failing, TypeError),
    ],
)
def test_a_probe_leaves_modes_and_memory_as_they_were(
    build: Callable[[], nn.Module], expected: object, mode: bool, last: bool
) -> None:
    network = build()
    if last:
        set_memory_format(network, torch.channels_last)
    first = next(network.children())
    for parameter in first.parameters():
        parameter.grad = torch.zeros_like(parameter)
    first.training = mode  # the others in training mode: a mixture must come back as a mixture
    before, modes = state(network), [module.training for module in network.modules()]
    if expected is TypeError:
        with pytest.raises(TypeError, match="wrong"):
            probe_memory_format(network, TWO)
    else:
        assert probe_memory_format(network, TWO) == expected
    assert state(network) == before
    assert [module.training for module in network.modules()] == modes


def test_the_probe_calls_the_network_as_it_is_told_in_evaluation_mode_and_channels_last() -> None:
    network, calls = plain(), []

    def logits(x: Tensor) -> Tensor:
        calls.append((network.training, network[0].weight.is_contiguous(memory_format=torch.channels_last)))
        return network(x)

    probe_memory_format(network, TWO, logits)
    assert calls == [(False, True)]
    assert network[1].num_batches_tracked == 0


def test_the_format_is_set_on_weights_and_on_what_the_optimiser_holds() -> None:
    network = plain()
    optimizer = torch.optim.AdamW(network.parameters())
    network(TWO).sum().backward()
    optimizer.step()
    set_memory_format(network, torch.channels_last, optimizer)
    weight = network[0].weight
    for tensor in (weight, *(optimizer.state[weight][name] for name in ("exp_avg", "exp_avg_sq"))):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert not tensor.is_contiguous()
    assert network.training


@pytest.mark.parametrize("enabled", [True, False])
def test_other_devices_are_left_alone_whatever_autocast_says(enabled: bool) -> None:
    network = plain().to("meta")
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        assert probe_memory_format(network, TWO.to("meta")) == torch.contiguous_format
