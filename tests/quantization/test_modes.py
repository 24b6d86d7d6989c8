"""Networks that read their mode come out as functions, or are refused with the line that makes them none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from art_divqat.errors import UserError
from art_divqat.quantization import QuantizationBackend, get_backend
from art_divqat.quantization.modes import check_eval_mode
from art_divqat.quantization.verification import check_function

SHAPE = (3, 12, 12)


class ReadsMode(nn.Module):
    """Everything that a network may do with `self.training`, and an ε, a momentum and a dropout of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=0.001, momentum=0.01)
        self.second, self.drop, self.linear = nn.Conv2d(4, 4, 3), nn.Dropout(0.25), nn.Linear(4, 5)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("variance", torch.ones(4))
        self.register_buffer("zeros", torch.zeros(4))
        self.register_buffer("ones", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.norm(self.conv(x)))
        h = functional.dropout(h, 0.3, self.training)
        h = functional.dropout2d(h, 0.5, training=self.training)
        if self.training:
            h = h + torch.randn_like(h)
        h = functional.batch_norm(self.second(h), self.mean, self.variance, self.ones, self.zeros, self.training)
        return self.linear(self.drop(h.mean([2, 3])))


class AlwaysRandom(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x.flatten(1), 0.5)


class AlwaysByBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(x, None, None, training=True).flatten(1)


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)).flatten(1)


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def trained(backend: QuantizationBackend, network: nn.Module) -> nn.Module:
    prepared = backend.prepare(network, SHAPE)
    for step in range(3):
        prepared((1 + step) * images(8, step)).sum().backward()
    return prepared


def test_a_network_that_reads_its_mode_becomes_a_function() -> None:
    torch.manual_seed(0)
    backend = get_backend("fx")
    prepared = trained(backend, ReadsMode())
    int8, twin, x = backend.convert(prepared), backend.freeze(prepared), images(7, 9)
    with torch.no_grad():
        first = int8(x)
        assert torch.equal(first, int8(x))
        assert (first - torch.cat([int8(x[:3]), int8(x[3:])])).abs().mean() < 0.01 * first.std()
        assert (first - twin(x)).abs().mean() < 0.1 * first.std()
        backend.set_mode(prepared, training=True, observe=False)
        assert not torch.equal(prepared(x), prepared(x)), "the dropout that is a module no longer drops in training"


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (
            AlwaysRandom(),
            r"AlwaysRandom is not a function.*`return functional.dropout\(x.flatten\(1\), 0.5\)` \(test_m",
        ),
        (AlwaysByBatch(), r"neighbours in the batch.*`return functional.batch_norm"),
        (Centred(), r"Centred is not a function of the image.*neighbours in the batch"),
        (nn.Sequential(AlwaysRandom(), nn.Linear(432, 5)), r"Sequential is not a function.*\(test_modes.py"),
    ],
)
def test_a_network_that_is_no_function_is_refused_with_its_line(network: nn.Module, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as refused:
        get_backend("fx").prepare(network, SHAPE)
    assert "\n" not in str(refused.value)


def test_the_check_leaves_network_and_random_state_alone() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten())
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = torch.get_rng_state()
    check_eval_mode(network, SHAPE, torch.device("cpu"))
    assert network.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class Averages(nn.Module):
    def __init__(self, mean: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.mean, self.linear = nn.Conv2d(3, 4, 3), mean, nn.LazyLinear(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.mean(functional.relu(self.conv(x))).flatten(1))


@pytest.mark.parametrize(
    "mean",
    [
        lambda h: h.mean([2, 3]),
        lambda h: h.mean(dim=(-1, -2)),
        lambda h: torch.mean(h, 3),
        lambda h: h.mean((2, 3), True),
        lambda h: h.mean((2, 3), keepdim=True),
    ],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_mean_over_the_image_is_taken_by_the_int8_kernel(
    mean: Callable[[Tensor], Tensor], memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    network, backend = Averages(mean), get_backend("fx")
    x = images(6).to(memory_format=memory_format)
    network(x)
    int8 = backend.convert(trained(backend, network))
    with torch.no_grad():
        check_function(int8, x, "The int8 network")
        assert torch.equal(int8(x), int8(images(6)))
    assert not any(
        node.target == "dequantize" and user.target in ("mean", torch.mean)
        for node in int8.graph.nodes
        for user in node.users
    )


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x.flatten(1)
        return -x.flatten(1)


def _weight_norm() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), nn.Flatten())


def test_errors_of_tracing_name_the_users_line_or_the_module() -> None:
    with pytest.raises(UserError, match=r"`if x.sum\(\) > 0:` \(test_modes.py"):
        get_backend("fx").prepare(Branches(), SHAPE)
    transposed = nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    for network in (transposed, _weight_norm()):
        message = "in module 'x'"
        try:
            prepared = trained(get_backend("fx"), network)
            get_backend("fx").convert(prepared)
        except UserError as error:
            message = str(error)
        assert "typing_extensions" not in message
        assert "module '" in message, message
