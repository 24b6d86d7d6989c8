"""Every architecture builds, is reproducible, gives logits of the right shape, and trains for one step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from art_divqat.errors import UserError
from art_divqat.models import MODELS, build_model, list_models
from art_divqat.models.registry import check_model


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("channels", [1, 3])
def test_builds_and_backpropagates(name: str, channels: int) -> None:
    side = max(8, MODELS[name].smallest_side)
    network = build_model(name, (channels, side, side), 7, seed=0)
    logits = network(torch.rand(2, channels, side, side))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_seed_decides_the_weights_and_leaves_the_global_state_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    first, again, other = (build_model("small-cnn", (1, 8, 8), 10, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(next(iter(first.parameters())), next(iter(other.parameters())))


def test_unknown_and_too_small() -> None:
    with pytest.raises(UserError, match="did you mean mobilenet-v2"):
        check_model("mobilnet-v2")
    with pytest.raises(UserError, match="at least 32×32 pixels, these are 8×8"):
        build_model("vgg16", (1, 8, 8), 10, seed=0)
    with pytest.raises(UserError, match="at least 2 classes"):
        build_model("lenet5", (1, 8, 8), 1, seed=0)
