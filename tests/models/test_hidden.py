"""A hidden layer before the last: the same answers until it is trained, in any network, by name too."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trainer_helpers import SHAPE
from torch import nn

from art_divqat.errors import UserError
from art_divqat.models import build_model
from art_divqat.models.hidden import with_hidden_layer
from art_divqat.models.registry import MODELS, check_model


@given(width=st.integers(1, 40), logits=st.integers(1, 300), bias=st.booleans(), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_the_answers_are_those_that_were_there(width: int, logits: int, bias: bool, seed: int) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(width, logits, bias=bias))
    x = torch.randn(4, width)
    deeper = with_hidden_layer(network, seed)
    torch.testing.assert_close(deeper(x), network(x), rtol=1e-5, atol=1e-6)
    assert deeper[1][0].out_features == max(512, 4 * logits)
    assert isinstance(network[1], nn.Linear)


@pytest.mark.parametrize("model", ["lenet5", "resnet20", "torchvision:mobilenet_v3_small"])
def test_of_a_network_its_last_layer_is_taken(model: str) -> None:
    network, x = build_model(model, (3, 32, 32), 7, seed=0).eval(), torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(with_hidden_layer(network).eval()(x), network(x), rtol=1e-4, atol=1e-5)


def test_a_network_without_a_linear_layer_is_refused() -> None:
    for network in (nn.Sequential(nn.Conv2d(1, 2, 8), nn.Flatten()), nn.Linear(3, 2)):
        with pytest.raises(UserError, match=r"no nn\.Linear inside"):
            with_hidden_layer(network)


def test_it_has_a_name() -> None:
    assert check_model("Hidden:LeNet5") == "hidden:lenet5"
    assert MODELS.canonical("hidden:probed:timm:tf-efficientnet-lite0") == "hidden:probed:timm:tf_efficientnet_lite0"
    assert MODELS["hidden:resnet18"].library_name is None
    network = build_model("hidden:lenet5", SHAPE, 10, seed=0)
    assert network(torch.rand(2, *SHAPE)).shape == (2, 10)
    assert torch.equal(*(build_model("hidden:lenet5", SHAPE, 10, seed=3).classifier[4][0].weight for _ in range(2)))


def test_random_units_are_of_centred_features_where_the_mean_is_known() -> None:
    network = nn.Sequential(nn.ReLU(), nn.Linear(6, 3, bias=False))
    x = 5 + torch.rand(20, 6)
    deeper = with_hidden_layer(network, mean=x.mean(0))
    torch.testing.assert_close(deeper(x), network(x), atol=1e-4, rtol=1e-4)
    units = deeper[1][0](x)[:, 6:].mean(0)
    torch.testing.assert_close(units, torch.zeros_like(units), atol=1e-4, rtol=0)
