"""A quantized network must be a function of its image, and the one that was trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from art_divqat.errors import UserError
from art_divqat.quantization.verification import check_fidelity, check_function

X = torch.rand(32, 6, generator=torch.Generator().manual_seed(0))


def test_a_function_passes_whatever_its_scale() -> None:
    for network in (lambda x: x, lambda x: 1e4 * x, lambda x: 0 * x, lambda x: x + 1e-7 * x.mean()):
        check_function(network, X, "It")
        check_function(network, X[:1], "It")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda x: functional.dropout(x, 0.3), "It is not a function: two answers .* differ by up to .*nn.Dropout"),
        (lambda x: x + torch.rand(1) * 1e-3, "two answers"),
        (lambda x: x - x.mean(dim=0), "neighbours in the batch.*BatchNorm2d"),
        (lambda x: functional.batch_norm(x, None, None, training=True), "neighbours in the batch"),
        (lambda x: x / 0, "not finite"),
        (lambda x: x @ torch.ones(7, 1), "cannot be run .*try the other backend"),
    ],
)
def test_what_is_no_function_is_refused(network, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_function(network, X, "It")


def test_accuracy_may_fall_by_what_chance_explains() -> None:
    x = torch.eye(10).repeat(30, 1)
    labels = x.argmax(dim=1)
    twin = nn.Identity()
    wrong = x.clone()
    wrong[:15] = wrong[:15].roll(1, dims=1)
    check_fidelity(lambda part: wrong[: len(part)], twin, x[:100], labels[:100])
    with pytest.raises(UserError, match=r"accuracy is 0.000 on 100 images .* has 1.000"):
        check_fidelity(lambda part: part.roll(1, dims=1), twin, x[:100], labels[:100])
    check_fidelity(twin, lambda part: part.roll(1, dims=1), x, labels)  # better than its twin


def test_without_labels_answers_are_compared() -> None:
    check_fidelity(lambda x: x + 0.1 * x.flip(0), nn.Identity(), X)
    with pytest.raises(UserError, match="root mean square"):
        check_fidelity(lambda x: -3 * x, nn.Identity(), X)


class Batchwise(nn.Module):
    """Scales each image by the brightest of the batch, read into Python."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (1e-3 + x.max().item())


def test_a_value_of_the_whole_batch_is_named_by_its_line() -> None:
    x = torch.linspace(0.1, 1, 8)[:, None] * torch.ones(8, 3)
    with pytest.raises(
        UserError, match=r"reads a value of the whole batch at `return x / \(1e-3 \+ x.max.*torch.where"
    ):
        check_function(Batchwise(), x, "This network")
