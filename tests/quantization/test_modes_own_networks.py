"""Networks of one's own, and small ones of torchvision's families, become functions that follow their twins."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import densenet, efficientnet, maxvit, mnasnet, shufflenetv2, swin_transformer
from torchvision.ops import stochastic_depth

from art_divqat.errors import UserError
from art_divqat.quantization import QuantizationBackend, get_backend
from art_divqat.quantization.verification import check_function

SHAPE = (3, 32, 32)
PT2E = pytest.param(
    "pt2e", marks=[pytest.mark.slow, pytest.mark.skipif(not importlib.util.find_spec("torchao"), reason="torchao")]
)


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def trained(backend: QuantizationBackend, network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.5
    prepared = backend.prepare(network, SHAPE)
    for step in range(3):
        prepared((1 + step) * images(8, step)).sum().backward()
    return prepared


def check(backend: QuantizationBackend, prepared: nn.Module) -> nn.Module:
    """The int8 network, which is a function whatever the order in memory, and about its twin."""
    int8, twin = backend.convert(prepared), backend.freeze(prepared)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = images(8, 9).to(memory_format=memory_format)
        check_function(int8, x, "The int8 network")
        with torch.no_grad():
            assert (int8(x) - twin(x)).abs().mean() < 0.1 * twin(x).std()
    return int8


def swin() -> nn.Module:
    return swin_transformer.SwinTransformer([2, 2], 8, [1, 1], [2, 2], [2, 2], stochastic_depth_prob=0.5, num_classes=5)


def efficientnet_v2() -> nn.Module:
    blocks = [
        efficientnet.FusedMBConvConfig(2, 3, 1, 8, 8, 2),
        efficientnet.MBConvConfig(2, 3, 2, 8, 8, 2),
    ]
    return efficientnet.EfficientNet(blocks, dropout=0.3, stochastic_depth_prob=0.5, num_classes=5, last_channel=16)


def max_vit() -> nn.Module:
    return maxvit.MaxVit((32, 32), 8, 2, [8, 8], [1, 1], 4, stochastic_depth_prob=0.5, num_classes=5)


# the third and fourth end in features of a single pixel
FAMILIES = [
    swin,
    efficientnet_v2,
    lambda: shufflenetv2.ShuffleNetV2([1, 1, 1], [8, 8, 16, 16, 16], num_classes=5),
    lambda: mnasnet.MNASNet(0.1, num_classes=5),
    # these are too slow for the table at their full size
    lambda: densenet.DenseNet(4, (1, 1), 8, num_classes=5),
    max_vit,
]


@pytest.mark.parametrize("name", ["fx", PT2E])
@pytest.mark.parametrize("build", FAMILIES)
def test_families_of_torchvision_in_small(build: Callable[[], nn.Module], name: str) -> None:
    torch.manual_seed(0)
    backend = get_backend(name)
    check(backend, trained(backend, build()))


class Between(nn.Module):
    """A small network with something of one's own between its convolutions."""

    def __init__(self, between: Callable[[Tensor, bool], Tensor] | nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, 2)
        self.between, self.head = between, nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.norm(self.first(x)))
        h = self.between(h) if isinstance(self.between, nn.Module) else self.between(h, self.training)
        return self.head(functional.relu(self.second(h)).mean([2, 3]))


class DropPath(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(len(x), 1, 1, 1) > 0.3) if self.training else x


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x.flatten(2).transpose(1, 2)).chunk(3, -1)
        dropped = 0.5 if self.training else 0.0
        h = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropped)
        return h.transpose(1, 2).reshape(x.shape)


def _by_instance(h: Tensor, training: bool) -> Tensor:
    mean, variance = torch.full((8,), 0.3), torch.full((8,), 0.2)
    return functional.instance_norm(h, mean, variance, use_input_stats=training)


OWN: list[Callable[[], object]] = [
    lambda: lambda h, training: stochastic_depth(h, 0.5, "row", training),
    lambda: lambda h, training: functional.alpha_dropout(h, 0.5, training),
    lambda: lambda h, training: functional.feature_alpha_dropout(h, 0.5, training),
    lambda: lambda h, training: torch.dropout(h, 0.5, training),
    lambda: lambda h, training: functional.rrelu(h, training=training),
    lambda: lambda h, training: h * torch.bernoulli(torch.full_like(h, 0.5)) if training else h,
    lambda: lambda h, training: functional.group_norm(h, 2),
    lambda: _by_instance,
    DropPath,
    Attention,
    lambda: nn.Sequential(nn.AlphaDropout(0.5), nn.FeatureAlphaDropout(0.5), nn.RReLU()),
    lambda: nn.GroupNorm(4, 8),
    lambda: nn.ConvTranspose2d(8, 8, 2, stride=2),
    lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
]


@pytest.mark.parametrize("name", ["fx", PT2E])
@pytest.mark.parametrize("build", OWN)
def test_what_users_put_into_their_networks(build: Callable[[], object], name: str) -> None:
    torch.manual_seed(0)
    backend = get_backend(name)
    check(backend, trained(backend, Between(build())))


class ByFunctions(nn.Module):
    """Its weights in a dictionary, its layers as functions."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.weights = nn.ParameterDict({"first": torch.randn(8, 3, 3, 3) / 5, "bias": torch.zeros(8)})
        self.layers, self.options = nn.ModuleDict({"head": nn.LazyLinear(5)}), options

    def forward(self, x: Tensor) -> Tensor:
        h = functional.conv2d(x, self.weights["first"], self.weights["bias"], **self.options)
        h = functional.max_pool2d(functional.gelu(h), 2)
        return self.layers["head"](functional.dropout(h.flatten(1), 0.2, self.training))


@pytest.mark.parametrize("name", ["fx", PT2E])
@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"stride": (2, 1), "padding": 1, "dilation": 2}, {"padding": "valid", "stride": 3}]
)
def test_convolutions_that_are_called_as_functions(options: dict[str, object], name: str) -> None:
    torch.manual_seed(0)
    backend, network = get_backend(name), ByFunctions(**options)
    network(images(2))
    check(backend, trained(backend, network))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, w: functional.conv2d(x, w, padding="same"), "conv2d in module '1' has padding='same': give it as a"),
        (lambda x, w: functional.conv2d(input=x, weight=w), "conv2d in module '1' is given its images by name"),
        (lambda x, w: functional.linear(input=x.mean([2, 3]), weight=w[:, :, 0, 0]), "linear in module '1' is given"),
    ],
)
def test_what_the_fx_backend_lacks_of_functions_is_said_before_training(call, message: str) -> None:
    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return call(x, self.weight).flatten(1)

    with pytest.raises(UserError, match=message) as refused:
        get_backend("fx").prepare(nn.Sequential(nn.ReLU(), Calls()), SHAPE)
    assert "\n" not in str(refused.value)


class OwnConvolution(nn.Conv2d):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 3, padding=1, bias=False)


class OwnNorm(nn.BatchNorm2d):
    """Batch norm under another name."""


class OwnDropout(nn.Dropout):
    def extra_repr(self) -> str:
        return "ours"


class Doubled(nn.ReLU):
    """A layer that computes something else than torch's: it stays what it is."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def of_own_classes() -> nn.Module:
    return nn.Sequential(
        OwnConvolution(3, 8), OwnNorm(8), Doubled(), OwnDropout(0.5), nn.AdaptiveAvgPool2d(4), nn.Flatten()
    )


@pytest.mark.parametrize("name", ["fx", PT2E])
def test_layers_derived_from_torchs_are_these_where_they_compute_the_same(name: str) -> None:
    torch.manual_seed(0)
    backend, network = get_backend(name), of_own_classes()
    prepared = trained(backend, network)
    statistics = [value for key, value in prepared.named_buffers() if key.endswith("running_mean")]
    assert statistics
    assert all(bool(each.any()) for each in statistics), "batch norm did not move in training"
    assert not torch.equal(prepared(images(4)), prepared(images(4))), "dropout does not drop in training"
    kinds = [type(module) for module in check(backend, prepared).modules()]
    assert not any(
        issubclass(kind, (nn.BatchNorm2d, nn.Conv2d)) and "quantized" not in kind.__module__ for kind in kinds
    )
    assert [type(module) for module in network][:2] == [OwnConvolution, OwnNorm], "the user's network was changed"


@pytest.mark.parametrize("name", ["fx", PT2E])
def test_a_layer_that_computes_something_else_is_not_taken_for_torchs(name: str) -> None:
    torch.manual_seed(0)
    backend, network, x = (
        get_backend(name),
        nn.Sequential(nn.Conv2d(3, 4, 3), Doubled(), nn.Flatten()).eval(),
        images(8),
    )
    prepared = backend.prepare(network, SHAPE)
    backend.calibrate(prepared, [x])
    with torch.no_grad():
        assert (backend.convert(prepared)(x) - network(x)).abs().mean() < 0.1 * network(x).std()
