"""Steps of a layer as if its inputs were centred: the same as of the layer that subtracts their mean."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from art_divqat.defences.trainer import DivQATTrainer, QATTrainer
from art_divqat.defences.trainer.centring import Centring, mean_before


@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, torch.optim.SGD])
def test_it_is_training_the_layer_that_subtracts_the_mean(optimizer_class) -> None:
    generator = torch.Generator().manual_seed(0)
    h = 3 + torch.rand(40, 5, generator=generator, dtype=torch.float64)
    y, mean = torch.randint(3, (40,), generator=generator), h.mean(0)
    plain = nn.Linear(5, 3, dtype=torch.float64)
    centred = nn.Linear(5, 3, dtype=torch.float64)
    with torch.no_grad():
        centred.weight.copy_(plain.weight)
        centred.bias.copy_(plain.bias + plain.weight @ mean)
    centring = Centring(plain.weight, plain.bias, mean)
    optimizers = [optimizer_class(layer.parameters(), lr=0.05) for layer in (plain, centred)]
    for _ in range(20):
        for optimizer, layer, inputs in zip(optimizers, (plain, centred), (h, h - mean), strict=True):
            optimizer.zero_grad()
            functional.cross_entropy(layer(inputs), y).backward()
            if layer is plain:
                centring.step(optimizer)
            else:
                optimizer.step()
    torch.testing.assert_close(plain(h), centred(h - mean))
    torch.testing.assert_close(plain.weight, centred.weight)


def test_the_mean_is_of_what_the_layer_is_given_and_the_network_stays_as_it_was() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4)).train()
    x = torch.rand(100, 1, 8, 8)
    torch.testing.assert_close(mean_before("2", network, x), x.flatten(1).mean(0))
    assert network.training
    assert not network[2]._forward_pre_hooks


@pytest.mark.parametrize("train_body", [True, False])
@pytest.mark.parametrize("backend", ["fx", "pt2e"])
def test_a_hidden_layer_that_mixtures_train_is_centred(digits, lenet_teacher, backend: str, train_body: bool) -> None:
    if backend == "pt2e":
        pytest.importorskip("torchao")
    x, y = digits
    trainer = DivQATTrainer(
        lenet_teacher,
        head="hidden",
        alpha_auxiliary=0,
        alpha_mixtures=0.1,
        train_body=train_body,
        backend=backend,
        tolerance=None,
    )
    trainer.fit(x[:300], y[:300], nb_epochs=6, batch_size=50)
    first, last = trainer.history[0], trainer.history[-1]
    assert last.confidence_mixtures < first.confidence_mixtures
    accuracy = (trainer.predict(x[300:]).argmax(1) == y[300:]).mean()
    assert accuracy > (lenet_teacher.predict(x[300:]).argmax(1) == y[300:]).mean() - 0.08


def test_no_other_training_is(digits, lenet_teacher, monkeypatch) -> None:
    def refuse(self: Centring, optimizer: torch.optim.Optimizer) -> None:
        raise AssertionError

    monkeypatch.setattr(Centring, "step", refuse)
    x, y = digits
    QATTrainer(lenet_teacher, head="hidden", tolerance=None).fit(x[:64], y[:64], nb_epochs=1)
    DivQATTrainer(lenet_teacher, alpha_auxiliary=0, alpha_mixtures=0.1, tolerance=None).fit(x[:64], y[:64], nb_epochs=1)
    hidden = DivQATTrainer(lenet_teacher, alpha_auxiliary=0, alpha_mixtures=0.1, head="hidden", tolerance=None)
    with pytest.raises(AssertionError):
        hidden.fit(x[:64], y[:64], nb_epochs=1)
