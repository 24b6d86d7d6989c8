"""An int8 network computes what its fake-quantized twin computes: the same weights, the same clamps, step for step."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import nn

from art_divqat.quantization import get_backend, use_engine

BACKENDS = [
    "fx",
    pytest.param("pt2e", marks=pytest.mark.skipif(not importlib.util.find_spec("torchao"), reason="torchao")),
]


class Upsampled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 16, 2, 2) / 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv_transpose2d(x, self.weight, stride=2).relu()


NETWORKS = {
    "batch norm": lambda: nn.Sequential(
        nn.Conv2d(3, 12, 3, bias=False),
        nn.BatchNorm2d(12, eps=0.001),
        nn.Hardswish(),
        nn.Conv2d(12, 5, 3),
        nn.Flatten(),
    ),
    "depthwise": lambda: nn.Sequential(
        nn.Conv2d(3, 9, 3, groups=3), nn.BatchNorm2d(9), nn.ReLU(), nn.Conv2d(9, 9, 3, groups=9), nn.Flatten()
    ),
    # this one's int8 kernel gives what happens to lie in memory
    "transposed": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 16, 2, 2),
        nn.ReLU(),
        nn.Conv2d(16, 5, 3),
        nn.Flatten(),
    ),
    "transposed, as a function": lambda: nn.Sequential(Upsampled(), nn.Conv2d(16, 5, 3), nn.Flatten()),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(300, 40), nn.ReLU(), nn.Linear(40, 7)),
    "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Linear(300, 40), nn.ReLU(), nn.Dropout(0.8), nn.Linear(40, 7)),
}


def images(n: int = 64, seed: int = 1) -> torch.Tensor:
    return torch.rand(n, 3, 10, 10, generator=torch.Generator().manual_seed(seed))


def pair(backend_name: str, network: nn.Module, reduce_range: bool | None = None) -> tuple[Any, Any, Any]:
    """Backend, twin and int8 network after a few steps."""
    torch.manual_seed(0)
    backend = get_backend(backend_name, reduce_range=reduce_range)
    prepared = backend.prepare(network, (3, 10, 10))
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.05)
    for seed in range(6):
        answers = prepared(images(32, seed))
        loss = answers.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    twin = backend.freeze(prepared)
    return backend, twin, backend.convert(twin.network)


@pytest.mark.parametrize("backend_name", BACKENDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_int8_answers_are_the_twins_step_for_step(backend_name: str, name: str) -> None:
    torch.manual_seed(3)
    backend, twin, int8 = pair(backend_name, NETWORKS[name]())
    with torch.no_grad(), use_engine(backend.engine):
        trained, served = twin(images()), int8(images())
    levels = trained.unique()
    step = float((levels[1:] - levels[:-1]).min())
    apart = (trained - served).abs() / step
    assert len(levels) > 20, "too few steps to see anything"
    # a value beside a step may fall on either side
    assert float((apart > 0.5).float().mean()) < 0.02
    assert float(apart.max()) < 2.5


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_the_weights_are_those_of_the_twin(backend_name: str) -> None:
    torch.manual_seed(5)
    backend, twin, int8 = pair(backend_name, NETWORKS["linear"]())
    quantizers = [
        module for module in twin.modules() if getattr(module, "is_per_channel", False) and hasattr(module, "scale")
    ]
    assert len(quantizers) == 2
    for quantizer in quantizers:
        scale, zero_point = quantizer.calculate_qparams()
        assert torch.equal(scale, quantizer.scale)
        assert not zero_point.any()
    if backend_name == "fx":
        with use_engine(backend.engine):
            for module, quantizer in zip((int8.get_submodule("1"), int8.get_submodule("3")), quantizers, strict=True):
                assert torch.equal(module.weight().q_per_channel_scales().float(), quantizer.scale)


@pytest.mark.parametrize("backend_name", BACKENDS)
@pytest.mark.parametrize("factor", [-4.0, 3.0, 20.0])
def test_seven_bits_hold_far_outside_the_trained_range(backend_name: str, factor: float) -> None:
    torch.manual_seed(7)
    backend, twin, int8 = pair(backend_name, NETWORKS["batch norm"](), reduce_range=True)
    with torch.no_grad(), use_engine(backend.engine):
        trained, served = twin(factor * images()), int8(factor * images())
    step = float((trained.unique()[1:] - trained.unique()[:-1]).min())
    assert float(((trained - served).abs() > 0.5 * step).float().mean()) < 0.03
    assert float(served.max()) <= float(trained.max()) + 1e-5, "clamped at 255, where the twin clamps at 127"


def test_eight_bits_are_not_clamped_again() -> None:
    _, _, int8 = pair("fx", NETWORKS["batch norm"](), reduce_range=False)
    assert not [node for node in int8.graph.nodes if "clamp" in str(node.target)]


def test_a_shared_layer_and_an_addition_keep_seven_bits() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(300, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.first(x))
            return self.last(torch.flatten(torch.cat([self.first(y)[:, :1], (x + y)[:, 1:]], 1), 1))

    torch.manual_seed(11)
    backend, twin, int8 = pair("fx", Twice(), reduce_range=True)
    with torch.no_grad(), use_engine(backend.engine):
        trained, served = twin(2 * images()), int8(2 * images())
    assert float((trained - served).abs().mean()) < 0.05 * float(trained.std())
