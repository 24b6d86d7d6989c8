"""Nested curves: never rising, the same as attacking every image at every radius, for fewer passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from art_divqat.attacks.evasion import craft, robust_mask
from art_divqat.errors import UserError
from art_divqat.models import build_model

RADII = (0.0, 0.02, 0.05, 0.1, 0.2)


class Counting(torch.nn.Module):
    """A linear classifier that counts the images it is asked."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(16, 3)
        self.requested = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.requested += len(x)
        return self.linear(x.flatten(1))


def scores(network: torch.nn.Module) -> Any:
    def predict(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(x)).numpy()

    return predict


@pytest.fixture
def victim() -> tuple[Counting, np.ndarray, np.ndarray]:
    network = Counting()
    x = np.random.default_rng(0).random((60, 1, 4, 4), np.float32)
    return network, x, scores(network)(x).argmax(axis=1)


def test_the_same_images_as_attacking_all_at_every_radius_where_the_attack_is_exact(
    victim: tuple[Counting, np.ndarray, np.ndarray],
) -> None:
    network, x, y = victim
    nested = robust_mask(network, x, y, epsilons=RADII, predict=scores(network), steps=10, early_stop=True)
    cheap, network.requested = network.requested, 0
    each = np.stack([
        scores(network)(craft(network, x, y, epsilon=radius, steps=10)).argmax(axis=1) == y for radius in RADII
    ])  # fmt: skip
    np.testing.assert_array_equal(nested, each)
    assert 0 < nested.mean() < 1
    assert cheap < network.requested


def test_an_image_once_fooled_is_never_attacked_again() -> None:
    network = build_model("lenet5", (1, 8, 8), 10, seed=0).eval()
    x = np.random.default_rng(1).random((8, 1, 8, 8), np.float32)
    y = np.arange(8) % 3
    requested: list[int] = []

    def predict(z: np.ndarray) -> np.ndarray:
        requested.append(len(z))
        # the attack at 0.1 fools the first half, the one at 0.2 would fool none of them
        wrong = (len(requested) == 2) & (np.arange(len(z)) < 4)
        return np.eye(10)[np.where(wrong, 9, y[-len(z) :])]

    found = robust_mask(network, x, y, epsilons=(0, 0.1, 0.2), predict=predict, steps=1)
    assert requested == [8, 8, 4]
    assert found.sum(axis=1).tolist() == [8, 4, 4]


def test_known_examples_stand_in_for_an_attack(victim: tuple[Counting, np.ndarray, np.ndarray]) -> None:
    network, x, y = victim
    known = craft(network, x, y, epsilon=0.1, steps=10)
    network.requested = 0
    found = robust_mask(network, x, y, epsilons=(0.1,), predict=scores(network), known={0.1: known})
    assert network.requested == len(x)
    np.testing.assert_array_equal(found[0], scores(network)(known).argmax(axis=1) == y)


@pytest.mark.parametrize("epsilons", [(0.2, 0.1), (0.1, 0.1)])
def test_radii_ascend(epsilons: tuple[float, ...], victim: tuple[Counting, np.ndarray, np.ndarray]) -> None:
    network, x, y = victim
    with pytest.raises(UserError, match="must ascend, each once"):
        robust_mask(network, x, y, epsilons=epsilons, predict=scores(network))


def test_attacks_leave_the_layout_of_the_weights_as_it_was() -> None:
    network = build_model("small-cnn", (3, 8, 8), 10, seed=0)
    before = {name: (value.clone(), value.stride()) for name, value in network.state_dict().items()}
    seen: list[bool] = []
    convolution = network.features[1][0]
    convolution.register_forward_hook(
        lambda module, *_: seen.append(module.weight.is_contiguous(memory_format=torch.channels_last))
    )
    x = np.random.default_rng(0).random((4, 3, 8, 8), np.float32)
    craft(network, x, np.arange(4), epsilon=0.1, steps=2)
    assert any(seen)
    for name, value in network.state_dict().items():
        assert value.stride() == before[name][1]
        assert torch.equal(value, before[name][0])


class Viewing(torch.nn.Module):
    """Takes `view` of what a convolution gives, which channels-last memory refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(1, 4, 3, padding=1)
        self.linear = torch.nn.Linear(4 * 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.convolution(x).view(len(x), -1))


def test_a_network_that_takes_views_is_attacked_in_its_own_layout() -> None:
    network, x = Viewing(), np.random.default_rng(0).random((5, 1, 4, 4), np.float32)
    crafted = craft(network, x, np.zeros(5, np.int64), epsilon=0.2, steps=3)
    assert not np.array_equal(crafted, x)
    assert network.convolution.weight.is_contiguous()
