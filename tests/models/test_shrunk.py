"""A network behind a shrinking of its images costs what it costs at the smaller size, and sees what readers see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from art_divqat.errors import UserError
from art_divqat.models import build_model
from art_divqat.models.shrunk import Shrunk, shrink, shrunk_shape


@given(height=st.integers(1, 300), width=st.integers(1, 300), data=st.data())
def test_the_smaller_side_is_the_one_asked_for_and_the_proportions_stay(
    height: int, width: int, data: st.DataObject
) -> None:
    side = data.draw(st.integers(1, min(height, width)))
    channels, low, high = shrunk_shape((3, height, width), side)
    assert channels == 3
    assert min(low, high) == side
    assert abs(low * width - high * height) <= max(height, width) / 2
    with pytest.raises(UserError, match=f"at most {min(height, width)}"):
        shrunk_shape((3, height, width), min(height, width) + 1)


def test_pictures_are_shrunk_as_they_are_when_they_are_read() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (61, 90, 3), dtype=np.uint8)
    read = Image.fromarray(pixels).resize((33, 20), Image.Resampling.BILINEAR)
    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))
    ours = shrink(x, (20, 33))[0].numpy() * 255
    assert np.abs(ours - np.asarray(read).transpose(2, 0, 1)).max() < 1.5
    # what a plain interpolation leaves of a fine pattern is the pattern again
    checks = torch.tensor([[0.0, 1.0]]).repeat(32, 16)[None, None]
    assert shrink(checks, (16, 16)).std() < 0.05


@pytest.mark.parametrize(("side", "smaller", "name"), [(32, 16, "small-cnn"), (224, 96, "resnet18")])
def test_a_training_step_costs_what_the_smaller_size_costs(side: int, smaller: int, name: str) -> None:
    x = torch.rand(2, 3, side, side)
    costs = {}
    for seen in (side, smaller):
        network = Shrunk(build_model(name, (3, seen, seen), 5, seed=0), (seen, seen)).train()
        kept: list[int] = []

        def pack(tensor: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(tensor.numel() * tensor.element_size())
            return tensor

        parameters = sum(each.numel() for each in network.parameters())
        with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            network(x).square().sum().backward()
        costs[seen] = counter.get_total_flops(), sum(kept) - 4 * parameters
    share = (smaller / side) ** 2
    assert costs[smaller][0] < 1.3 * share * costs[side][0]
    assert costs[smaller][1] < 1.5 * share * costs[side][1]


def test_gradients_reach_the_whole_image() -> None:
    network = Shrunk(build_model("lenet5", (1, 8, 8), 4, seed=0).eval(), (8, 8))
    x = torch.rand(1, 1, 16, 16, requires_grad=True)
    network(x).square().sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).float().mean() > 0.5
