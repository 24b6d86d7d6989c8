"""Halves: the head of the body is the network, in both modes and backends, and training one half trains it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from art_divqat.errors import UserError
from art_divqat.models import build_model
from art_divqat.quantization import get_backend, use_engine
from art_divqat.quantization.halves import Halves, digest_of

SHAPE = (3, 32, 32)
# where the last two layers with weights begin, or the residual block that holds them
CUTS = {
    "lenet5": (120,),
    "small-cnn": (4096,),
    "resnet20": (64, 8, 8),
    "torchvision:resnet18": (512, 1, 1),
    "torchvision:mobilenet_v3_small": (576,),
    "torchvision:squeezenet1_0": (64, 1, 1),
}


def prepared_network(model: str, backend: str):
    quantizer = get_backend(backend)
    prepared = quantizer.prepare(build_model(model, SHAPE, 10, seed=0), SHAPE)
    quantizer.calibrate(prepared, [torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0))])
    return quantizer, prepared


def whole(prepared: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return prepared(x)


@pytest.mark.parametrize("backend", ["fx", "pt2e"])
@pytest.mark.parametrize("model", list(CUTS)[:4])
def test_the_head_of_the_body_is_the_network(model: str, backend: str) -> None:
    if backend == "pt2e":
        pytest.importorskip("torchao")
    _, prepared = prepared_network(model, backend)
    halves, x = Halves(prepared), torch.rand(5, *SHAPE)
    halves.follow(training=False)
    features = halves.body(x)
    assert features.shape[1:] == CUTS[model]
    torch.testing.assert_close(halves.head(features), whole(prepared, x), rtol=0, atol=0)


@pytest.mark.parametrize("model", list(CUTS)[4:])
def test_the_cut_is_before_the_last_two_layers_with_weights(model: str) -> None:
    _, prepared = prepared_network(model, "fx")
    assert Halves(prepared).body(torch.rand(2, *SHAPE)).shape[1:] == CUTS[model]


@pytest.mark.parametrize("backend", ["fx", "pt2e"])
def test_the_halves_are_of_the_mode_that_the_network_is_in(backend: str) -> None:
    """Batch norm of a batch of its own in training, of all training images after it; dropout likewise."""
    if backend == "pt2e":
        pytest.importorskip("torchao")
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    head = [nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2)]
    quantizer = get_backend(backend)
    prepared = quantizer.prepare(nn.Sequential(*layers, *head), SHAPE)
    x = torch.rand(6, *SHAPE)
    quantizer.calibrate(prepared, [x])
    halves = Halves(prepared)
    for training in (True, False, True):
        quantizer.set_mode(prepared, training=training, observe=False)
        halves.follow(training=training)
        expected = whole(copy.deepcopy(prepared), x)  # of a copy: in training a pass moves the statistics
        torch.testing.assert_close(halves.head(halves.body(x)), expected)


def test_training_the_head_trains_the_network() -> None:
    quantizer, prepared = prepared_network("lenet5", "fx")
    halves, x = Halves(prepared), torch.rand(4, *SHAPE)
    before = whole(prepared, x)
    features = halves.body(x).detach()
    optimizer = torch.optim.SGD(halves.head.parameters(), 0.5)
    halves.head(features).square().sum().backward()
    optimizer.step()
    quantizer.set_mode(prepared, training=False, observe=False)
    assert not torch.equal(whole(prepared, x), before)
    torch.testing.assert_close(halves.head(features), whole(prepared, x))


class TwoWays(nn.Module):
    """Nothing but the image itself and the output is passed by everything."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3 * 32 * 32, 4), nn.Linear(3 * 32 * 32, 4)

    def forward(self, x):
        x = x.flatten(1)
        return functional.relu(self.a(x)) + self.b(x)


class OneLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3 * 32 * 32, 4)

    def forward(self, x):
        return self.a(x.flatten(1))


class WritesOver(nn.Module):
    """The only narrow place is written over by what follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.c = nn.Linear(4, 2)

    def forward(self, x):
        h = functional.relu_(self.a(x))
        return self.c(functional.relu_(self.b(h)).mean((2, 3)))


def test_a_network_without_such_a_place_is_refused() -> None:
    quantizer = get_backend("fx")
    with pytest.raises(UserError, match="no place with 2 layers after it"):
        Halves(quantizer.prepare(OneLayer(), SHAPE))


def test_two_ways_are_cut_before_they_part() -> None:
    prepared = get_backend("fx").prepare(TwoWays(), SHAPE)
    assert Halves(prepared).body(torch.rand(2, *SHAPE)).shape == (2, 3 * 32 * 32)


def test_features_are_not_written_over() -> None:
    prepared = get_backend("fx").prepare(WritesOver(), SHAPE).eval()
    halves = Halves(prepared)
    features = halves.body(torch.rand(2, *SHAPE)).detach()
    kept = features.clone()
    halves.head(features)
    torch.testing.assert_close(features, kept, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["fx", "pt2e"])
@pytest.mark.parametrize("model", ["lenet5", "resnet20", "torchvision:mobilenet_v3_small"])
def test_an_int8_network_has_halves_too(model: str, backend: str) -> None:
    if backend == "pt2e":
        pytest.importorskip("torchao")
    quantizer, prepared = prepared_network(model, backend)
    network, x = quantizer.convert(prepared), torch.rand(5, *SHAPE)
    halves = Halves(network)
    with torch.no_grad(), use_engine(quantizer.engine):
        features = halves.body(x)
        assert torch.equal(halves.head(features), network(x))
    assert features.flatten(1).shape[1] >= np.prod(CUTS[model]) or model != "lenet5"
    assert digest_of(halves.body) == digest_of(Halves(quantizer.convert(prepared)).body)


@pytest.mark.parametrize("convert", [False, True])
def test_a_hash_tells_bodies_apart_and_knows_nothing_of_heads(convert: bool) -> None:
    quantizer, prepared = prepared_network("lenet5", "fx")

    def hashes() -> tuple[str, str]:
        halves = Halves(quantizer.convert(prepared) if convert else prepared)
        return digest_of(halves.body), digest_of(halves.head)

    body, head = hashes()
    parameters = dict(prepared.named_parameters())
    with torch.no_grad():
        parameters["classifier.4.weight"].mul_(-1)
    assert hashes()[0] == body
    assert hashes()[1] != head
    with torch.no_grad():
        parameters["features.0.weight"].mul_(-1)
    assert hashes()[0] != body
