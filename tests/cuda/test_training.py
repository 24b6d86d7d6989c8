"""Training by a recipe on a GPU: it learns, in either precision, recorded or not, and one seed gives one network."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from support.digits_victim import SHAPE, digits
from torch import Tensor, nn

from art_divqat.errors import UserError
from art_divqat.estimators import RecipeClassifier, TrainingRecipe, training_set
from art_divqat.estimators.descent import Descent, autocast
from art_divqat.estimators.memory_format import probe_memory_format
from art_divqat.estimators.training_set import TrainingSet, from_bytes
from art_divqat.models import build_model

pytestmark = pytest.mark.cuda

OPTIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "sgd": {"optimizer": "sgd", "learning_rate": 0.05},
    "bfloat16": {"precision": "bfloat16"},
    "recorded": {"precision": "bfloat16", "cuda_graphs": True},
    "recorded, sgd": {"optimizer": "sgd", "learning_rate": 0.05, "cuda_graphs": True},
    "all": {
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "precision": "bfloat16",
        "cuda_graphs": True,
        "augmentation": "flip",
        "warm_up": 0.1,
        "label_smoothing": 0.1,
    },
}


def fresh(device: str, model: str = "small-cnn", **options: Any) -> RecipeClassifier:
    recipe = TrainingRecipe(**{"epochs": 8, "learning_rate": 3e-3, **options})
    return RecipeClassifier(build_model(model, SHAPE, 10, seed=0), SHAPE, 10, recipe, seed=0, device=device)


def state(classifier: RecipeClassifier) -> list[Tensor]:
    return [value.detach().cpu().clone() for value in classifier.model.state_dict().values()]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_learns_and_one_seed_gives_one_network(device: str, options: dict[str, Any]) -> None:
    if options.get("precision") == "bfloat16" and not device.startswith("cuda"):
        pytest.skip("most CPUs emulate bfloat16, which takes minutes")
    images, labels = digits()
    states = []
    for _ in range(2):
        classifier = fresh(device, **options)
        classifier.fit(images[:900], labels[:900])  # 14 full batches and a smaller one, eight times
        states.append(state(classifier))
    accuracy = (classifier.predict(images[1300:]).argmax(1) == labels[1300:]).mean()
    assert accuracy > (0.8 if options.get("augmentation") else 0.9)
    assert classifier.training_losses[-1] < classifier.training_losses[0]
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))
    for parameter in classifier.model.parameters():
        assert parameter.device.type == torch.device(device).type
        assert parameter.dtype == torch.float32
        assert parameter.is_contiguous()


def test_the_first_epoch_is_that_of_the_cpu_within_rounding(device: str) -> None:
    images, labels = digits()
    losses = []
    for where in (device, "cpu"):
        classifier = fresh(where, epochs=1, learning_rate=1e-3, optimizer="sgd")
        classifier.fit(images[:256], labels[:256])
        losses.append(classifier.training_losses[0])
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)


def test_a_recorded_run_is_the_run_within_rounding(gpu: str) -> None:
    images, labels = digits()
    losses = []
    for recorded in (False, True):
        classifier = fresh(gpu, optimizer="sgd", learning_rate=0.02, cuda_graphs=recorded)
        classifier.fit(images[:900], labels[:900])
        losses.append(classifier.training_losses)
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


def test_networks_may_be_trained_again_and_go_on_from_a_recorded_run(device: str) -> None:
    images, labels = digits()
    classifier = fresh(device, cuda_graphs=True)
    classifier.fit(images[:900], labels[:900])
    classifier.fit(images[:64], labels[:64], nb_epochs=2)
    classifier.fit(images[:900], labels[:900])
    assert np.isfinite(classifier.training_losses).all()
    assert (classifier.predict(images[1300:]).argmax(1) == labels[1300:]).mean() > 0.9


def test_dropout_draws_anew_in_every_replay(device: str) -> None:
    images, labels = digits()
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Dropout(0.5), nn.Linear(64, 10))
    recipe = TrainingRecipe(epochs=20, learning_rate=1e-30, weight_decay=0, cuda_graphs=True, batch_size=32)
    classifier = RecipeClassifier(network, SHAPE, 10, recipe, device=device)
    classifier.fit(images[:320], labels[:320])
    assert len(set(classifier.training_losses)) > 10


class Waiting(nn.Module):
    """Asks for a number in the middle of its forward, which a recording cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)) * (1.0 + 0 * float(x.sum().item()))


def test_what_cannot_be_recorded_is_one_sentence_and_trains_unrecorded(gpu: str) -> None:
    images, labels = digits()
    recorded = RecipeClassifier(Waiting(), SHAPE, 10, TrainingRecipe(epochs=20, cuda_graphs=True), device=gpu)
    with pytest.raises(UserError, match="train it without cuda_graphs"):
        recorded.fit(images[:640], labels[:640])
    plain = RecipeClassifier(Waiting(), SHAPE, 10, TrainingRecipe(epochs=2), device=gpu)
    plain.fit(images[:640], labels[:640])
    assert plain.training_losses[1] < plain.training_losses[0]


@pytest.mark.parametrize("is_bytes", [True, False])
@pytest.mark.parametrize("resident", [True, False])
def test_batches_are_the_images_to_the_last_bit(
    device: str, is_bytes: bool, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    images = from_bytes(torch.from_numpy(random.integers(0, 256, (40, 3, 8, 8), np.uint8)))
    if not is_bytes:
        images += 1e-4
    if not resident:
        monkeypatch.setattr(training_set, "_RESIDENT_BYTES", 1)
    rows = torch.from_numpy(random.integers(0, 40, 30))
    data = TrainingSet(images, torch.arange(30), rows, torch.device(device))
    order = torch.randperm(30)
    batches = list(data.epoch(order, 7))
    assert torch.equal(torch.cat([x.cpu() for x, _ in batches]), images[rows[order]])
    assert torch.equal(torch.cat([y.cpu() for _, y in batches]), order)
    assert {x.device.type for x, _ in batches} == {torch.device(device).type}
    if device.startswith("cuda"):
        assert data._images.dtype == (torch.uint8 if is_bytes and resident else torch.float32)
        assert data._images.is_cuda == resident


def test_channels_last_is_for_autocast_alone(device: str) -> None:
    network = build_model("small-cnn", SHAPE, 10, seed=0).to(device)
    images = torch.zeros(2, *SHAPE, device=device)
    with autocast("bfloat16", images.device):
        assert probe_memory_format(network, images) == torch.channels_last
    with autocast("float32", images.device):
        expected = torch.contiguous_format if images.is_cuda else torch.channels_last
        assert probe_memory_format(network, images) == expected


def test_no_step_waits_for_the_gpu(gpu: str) -> None:
    images = torch.zeros(512, 3, 16, 16)
    network = build_model("resnet20", (3, 16, 16), 10, seed=0).to(gpu).train()
    recipe = TrainingRecipe(optimizer="sgd", learning_rate=0.1)
    optimizer = recipe.build_optimizer(network)
    where = next(network.parameters()).device
    data = TrainingSet(images, torch.zeros(512, dtype=torch.int64), None, where, augmentation="crop-flip")
    descend = Descent(
        lambda x, y: nn.functional.cross_entropy(network(x).float(), y), network, optimizer, precision="bfloat16"
    )
    epoch = data.epoch(torch.randperm(512), 64)
    descend(*next(epoch))
    total = torch.zeros((), device=gpu)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for done, (x, y) in enumerate(epoch):
            optimizer.param_groups[0]["lr"] = recipe.learning_rate_at(done / 8)
            total += descend(x, y) * len(y)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(total)


@pytest.mark.parametrize("model", ["resnet18", "resnet34", "vgg16"])
def test_networks_of_the_papers_train_channels_last_and_recorded(device: str, model: str) -> None:
    random = np.random.default_rng(0)
    few = not device.startswith("cuda")
    images, labels = random.random((4 if few else 64, 3, 32, 32), np.float32), np.arange(4 if few else 64) % 10
    precision = "float32" if few else "bfloat16"  # most CPUs emulate it, which takes minutes
    options = {"optimizer": "sgd", "learning_rate": 1e-2, "precision": precision, "cuda_graphs": True}
    recipe = TrainingRecipe(epochs=1 if few else 50, batch_size=2 if few else 32, **options)
    network = build_model(model, (3, 32, 32), 10, seed=0)
    before = copy.deepcopy(network.state_dict())
    classifier = RecipeClassifier(network, (3, 32, 32), 10, recipe, device=device)
    classifier.fit(images, labels)
    assert np.isfinite(classifier.training_losses).all()
    assert few or classifier.training_losses[-1] < classifier.training_losses[0]
    after = {name: p.detach().cpu() for name, p in classifier.model.named_parameters() if p.ndim > 1}
    assert not any(torch.equal(before[name], weight) for name, weight in after.items())
