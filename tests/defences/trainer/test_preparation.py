"""The trainers hand out networks of one logit a class only."""

from __future__ import annotations

import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from support.trainer_helpers import SHAPE
from torch import Tensor, nn

from art_divqat.defences.trainer import QATTrainer
from art_divqat.errors import UserError


class Wrapped(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.linear = kind, nn.Linear(64, 1 if kind == "one" else 10)

    def forward(self, x: Tensor) -> object:
        logits = self.linear(x.flatten(1))
        return {"one": logits, "dict": {"logits": logits}, "tuple": (logits, x)}[self.kind]


@pytest.mark.parametrize(("kind", "given"), [("one", r"shape \(2, 1\)"), ("dict", "a dict"), ("tuple", "a tuple")])
def test_a_network_without_one_logit_a_class_is_refused_at_construction(kind: str, given: str) -> None:
    network = Wrapped(kind)
    classifier = PyTorchClassifier(
        network, nn.BCEWithLogitsLoss(), SHAPE, 10, torch.optim.SGD(network.parameters(), lr=0.1), clip_values=(0, 1)
    )
    with pytest.raises(UserError, match=f"one logit a class.*Got {given}") as refused:
        QATTrainer(classifier)
    assert "\n" not in str(refused.value)
