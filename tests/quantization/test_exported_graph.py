"""An exported graph keeps what batch norm and dropout say, and folds each batch norm once."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from art_divqat.errors import UserError
from art_divqat.quantization import get_backend

# torchao exports a dozen patterns for each network
pytestmark = pytest.mark.slow
pytest.importorskip("torchao")

SHAPE = (3, 12, 12)


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def moved(network: nn.Module) -> nn.Module:
    """With running statistics that are not those of a new batch norm."""
    network.train()
    with torch.no_grad():
        for step in range(3):
            network((1 + step) * images(8, step))
    return network.eval()


class Twice(nn.Module):
    """A convolution and batch norm that are called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, eps=0.01, momentum=0.3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = functional.relu(self.norm(self.convolution(x)))
        return x.flatten(1)


class Outer(nn.Module):
    """A block that is called twice, with another convolution between."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU())
        self.between = nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.between(self.block(x))).flatten(1)


class WithoutWeight(nn.Module):
    """A functional batch norm without weight and bias behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.register_buffer("mean", torch.full((4,), 0.1))
        self.register_buffer("variance", torch.full((4,), 0.05))

    def forward(self, x: Tensor) -> Tensor:
        h = functional.batch_norm(self.convolution(x), self.mean, self.variance, training=self.training, eps=0.02)
        return functional.relu(h).flatten(1)


def test_epsilon_momentum_and_dropout_stay_in_both_modes() -> None:
    """Wherever they stand: behind a convolution, before one, behind a linear layer, and of every kind of dropout."""
    backend = get_backend("pt2e")
    network = nn.Sequential(
        nn.BatchNorm2d(3, eps=0.2, momentum=0.9),
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, eps=0.1, momentum=0.01),
        nn.Dropout2d(0.1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(400, 5),
        nn.BatchNorm1d(5, eps=0.3, momentum=0.7),
        nn.AlphaDropout(0.35),
    )
    prepared = copy.deepcopy(backend.prepare(network, SHAPE))
    for training in (True, False, True):
        backend.set_mode(prepared, training=training, observe=False)
        nodes = [node for node in prepared.graph.nodes if node.op == "call_function"]
        norms = [node.args[5:8] for node in nodes if node.target is torch.ops.aten.batch_norm.default]
        assert norms == [(training, 0.9, 0.2), (training, 0.01, 0.1), (training, 0.7, 0.3)]
        dropouts = [node.args[1:] for node in nodes if "dropout" in str(node.target)]
        assert dropouts == [(0.1, training), (0.25, training), (0.35, training)]


def test_a_norm_that_averages_over_all_batches_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"cannot trace Sequential: .*backend='fx'") as refused:
        get_backend("pt2e").prepare(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None)), SHAPE)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "build",
    [
        Twice,
        Outer,
        WithoutWeight,
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=0.1), nn.ReLU(), nn.Flatten()),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False), nn.Flatten()),
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-7), nn.Flatten()),
    ],
)
def test_the_int8_network_is_the_one_that_came_in(build) -> None:
    """Its ranges are calibrated and its weights are not trained, so that only rounding may tell them apart."""
    torch.manual_seed(0)
    backend, network, x = get_backend("pt2e"), moved(build()), images(16, 9)
    prepared = backend.prepare(network, SHAPE)
    backend.calibrate(prepared, [x])
    int8 = backend.convert(prepared)
    with torch.no_grad():
        assert (network(x) - int8(x)).abs().mean() < 0.03 * network(x).std()
        assert torch.equal(int8(x), int8(x))
    assert not any("batch_norm" in str(node.target) for node in int8.graph.nodes)


def test_a_batch_norm_that_cannot_be_folded_stays_one() -> None:
    torch.manual_seed(0)
    backend, x = get_backend("pt2e"), images(16, 9)
    network = moved(nn.Sequential(nn.BatchNorm2d(3, eps=0.2), nn.Conv2d(3, 4, 3), nn.Flatten()))
    prepared = backend.prepare(network, SHAPE)
    backend.calibrate(prepared, [x])
    int8 = backend.convert(prepared)
    with torch.no_grad():
        assert (network(x) - int8(x)).abs().mean() < 0.03 * network(x).std()
    assert [node.args[5:8] for node in int8.graph.nodes if node.target is torch.ops.aten.batch_norm.default] == [
        (False, 0.1, 0.2)
    ]
