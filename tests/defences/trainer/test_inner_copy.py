"""The copy on which the inner attack takes its gradients: the network's weights in bfloat16, recorded for one shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from art_divqat.defences.trainer._inner_copy import InnerCopy


def built() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def test_it_follows_weights_statistics_and_counts_and_leaves_the_network_alone() -> None:
    network = built()
    inner = InnerCopy(network)
    network.train()
    for _ in range(3):
        network(torch.randn(8, 1, 4, 4))
    with torch.no_grad():
        network[0].weight.add_(0.5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inner.follow()
    for name, value in inner._own.state_dict().items():
        assert torch.equal(value, before[name].to(value.dtype))
        assert torch.equal(network.state_dict()[name], before[name])
    assert network.training
    x = torch.randn(2, 1, 4, 4, requires_grad=True)
    answer = inner(x)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, network.eval()(x), rtol=0.1, atol=0.1)
    answer.sum().backward()
    assert x.grad is not None
    assert all(parameter.grad is None for parameter in network.parameters())


def test_what_was_recorded_is_played_for_its_shape_and_for_gradients_alone() -> None:
    inner, played = InnerCopy(built()), []

    class Played(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            played.append(tuple(x.shape))
            return inner._own(x)

    inner._recorded, inner._recorded_shape = Played(), torch.Size([2, 1, 4, 4])
    for count, wanted in ((2, True), (3, True), (2, False)):
        inner(torch.randn(count, 1, 4, 4, requires_grad=wanted))
    assert played == [(2, 1, 4, 4)]
