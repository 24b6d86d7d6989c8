"""Networks that read their mode come out as functions, or are refused with the line that makes them none."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from art_divqat.errors import UserError
from art_divqat.quantization import QuantizationBackend, get_backend
from art_divqat.quantization.modes import check_eval_mode
from art_divqat.quantization.verification import check_function

SHAPE = (3, 12, 12)
PT2E = pytest.param(
    "pt2e", marks=[pytest.mark.slow, pytest.mark.skipif(not importlib.util.find_spec("torchao"), reason="torchao")]
)


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


@pytest.mark.parametrize("name", ["fx", PT2E])
def test_a_network_that_reads_its_mode_becomes_a_function(name: str) -> None:
    torch.manual_seed(0)
    backend = get_backend(name)
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


@pytest.mark.parametrize("name", ["fx", PT2E])
def test_errors_of_tracing_name_the_users_line(name: str) -> None:
    with pytest.raises(UserError, match=r"`if x.sum\(\) > 0:` \(test_modes.py.* rewrite it"):
        get_backend(name).prepare(Branches(), SHAPE)


def _weight_norm(convolution: nn.Conv2d) -> nn.Module:
    return nn.utils.parametrizations.weight_norm(convolution)


def _old_weight_norm(convolution: nn.Conv2d) -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(convolution)


def _pruned(convolution: nn.Conv2d) -> nn.Module:
    return prune.l1_unstructured(convolution, "weight", 3)


@pytest.mark.parametrize("computed", [_weight_norm, _old_weight_norm, _pruned, nn.utils.parametrizations.spectral_norm])
@pytest.mark.parametrize("norm", [nn.Identity, lambda: nn.BatchNorm2d(4)])
def test_a_weight_that_is_computed_is_refused_with_its_module(computed, norm: Callable[[], nn.Module]) -> None:
    network = nn.Sequential(nn.Sequential(computed(nn.Conv2d(3, 4, 3)), norm()), nn.Flatten())
    with pytest.raises(UserError, match=r"Module '0.0' \(.*Conv2d\) computes its weight .* remove") as refused:
        get_backend("fx").prepare(network, SHAPE)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            nn.Sequential(nn.ReLU(), nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)), nn.Flatten()),
            r"cannot trace Sequential in module '1.1' \(BatchNorm2d\): .*ConvTranspose.*backend='pt2e'",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.Flatten()),
            r"Module '0' \(Conv2d\) has padding_mode='circular'.*backend='pt2e'",
        ),
    ],
)
def test_what_the_fx_backend_lacks_is_said_before_training(network: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        get_backend("fx").prepare(network, SHAPE)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["fx", PT2E])
def test_padding_that_no_backend_takes_is_refused_by_both_alike(name: str) -> None:
    network = nn.Sequential(nn.Identity(), nn.Conv2d(3, 4, (3, 2), padding="same"), nn.Flatten())
    with pytest.raises(UserError, match=r"Module '1' \(Conv2d\) has padding='same' with an even kernel") as refused:
        get_backend(name).prepare(network, SHAPE)
    assert "backend=" not in str(refused.value)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Conv2d(3, 4, 3, padding="same", dilation=2), nn.BatchNorm2d(4)],
        lambda: [nn.Conv2d(3, 4, (1, 3), padding="valid")],
        lambda: [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False), nn.ReLU()],
        lambda: [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU()],
        lambda: [nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Conv2d(4, 2, 3)],
    ],
)
@pytest.mark.parametrize("name", ["fx", PT2E])
def test_layers_with_a_kernel_of_their_own_follow_the_twin(name: str, layers: Callable[[], list[nn.Module]]) -> None:
    torch.manual_seed(0)
    backend = get_backend(name)
    prepared = trained(backend, nn.Sequential(*layers(), nn.Flatten()))
    twin, int8, x = backend.freeze(prepared), backend.convert(prepared), images(7, 9)
    with torch.no_grad():
        assert (int8(x) - twin(x)).abs().mean() < 0.05 * twin(x).std()
        answers = twin(x)
        twin(50 * x)
        assert torch.equal(answers, twin(x)), "an observer still moves"
