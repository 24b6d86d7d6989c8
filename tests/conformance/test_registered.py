"""The public checks of every kind by name: they pass ours, and find what is broken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from art_divqat.attacks.recovery import RECOVERIES, Labels, Recovery, RecoveryEntry
from art_divqat.data import RawImages
from art_divqat.data.pools import POOLS, PoolEntry
from art_divqat.data.sources import DATASETS, DatasetEntry
from art_divqat.defences.registry import DEFENCES
from art_divqat.errors import UserError
from art_divqat.models.registry import MODELS, ModelEntry
from art_divqat.testing import check, check_architecture, check_dataset, check_pool, check_recovery, check_victim
from art_divqat.victims.registry import VICTIMS, VictimEntry

IMAGES = np.random.default_rng(0).random((40, 1, 6, 6), np.float32)
LABELS = np.arange(40) % 2
calls: list[int] = []


def raw(**changes: Any) -> DatasetEntry:
    given = {"x": IMAGES, "y": LABELS, "x_test": None, "y_test": None, "class_names": ("a", "b"), **changes}
    return DatasetEntry("two classes", lambda root, download: RawImages("checked", **given))


def another_each_time() -> Any:
    calls.append(0)
    return np.random.default_rng(len(calls)).random((40, 1, 6, 6), np.float32)


DATA: dict[str, tuple[DatasetEntry, str]] = {
    "list": (DatasetEntry("a list", lambda root, download: [1]), "gave a list: expected art_divqat.data.RawImages"),
    "no list": (replace(raw(), pictures=True), "gave a RawImages: expected art_divqat.data.PictureList"),
    "range": (raw(x=IMAGES * 255), r"must lie in \[0, 1\]"),
    "names": (raw(class_names=("a", "a")), "names classes twice: a, a"),
    "empty class": (raw(class_names=("a", "b", "c")), "has no image of class 'c'"),
    "too few": (raw(y=np.array([1, *[0] * 39])), "class 1 has too few images"),
    "test": (raw(x_test=IMAGES), "gave test images or their labels alone"),
    "changing": (
        DatasetEntry("noise", lambda *_: RawImages("", another_each_time(), LABELS, None, None, ("a", "b"))),
        "gave other images when it was read again",
    ),
    "radius": (replace(raw(), epsilon=8.0), "has the radius 8.0"),
    "pool": (replace(raw(), pool="fotos"), "Unknown query pool 'fotos'"),
    "state": (
        DatasetEntry("global", lambda *_: (np.random.random(), raw().read(None, False))[1]),  # type: ignore[operator]
        "disturbed the global random state",
    ),
}


def draws(shape: tuple[int, ...], n: int, seed: int) -> Any:
    return np.random.default_rng(seed).random((n, *shape), np.float32)


POOL: dict[str, tuple[Callable[..., Any], str]] = {
    "count": (lambda shape, n, seed: draws(shape, 16, seed), r"gave an array \(16, 1, 8, 8\): expected \(5, 1, 8, 8\)"),
    "shape": (lambda shape, n, seed: draws(shape[::-1], n, seed), r"expected \(16, 1, 8, 8\)"),
    "range": (lambda shape, n, seed: draws(shape, n, seed) - 0.5, r"must lie in \[0, 1\]"),
    "seedless": (lambda shape, n, seed: draws(shape, n, 0), "gave the same images for another seed"),
    "seeded anew": (lambda shape, n, seed: draws(shape, n, calls.append(0) or len(calls)), "images for the same seed"),
    "one": (lambda shape, n, seed: np.repeat(draws(shape, 1, seed), n, axis=0), "gave one image again and again"),
}


class Net(nn.Module):
    """A linear network that goes wrong in its last step."""

    def __init__(self, shape: tuple[int, int, int], classes: int, last: Callable[[Any], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(shape), classes)
        self.last = last

    def forward(self, x: Any) -> Any:
        return self.last(self.linear(x.flatten(1)))


def ends_in(last: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda shape, classes: Net(shape, classes, last)


def seeds_itself(shape: tuple[int, int, int], classes: int) -> Any:
    torch.manual_seed(0)
    return Net(shape, classes, nn.Identity())


def tied(shape: tuple[int, int, int], classes: int) -> Any:
    network: Any = Net(shape, classes, nn.Identity())
    network.register_buffer("first_row", network.linear.weight.data[:1])
    return network


NETWORKS: dict[str, tuple[Callable[..., Any], str]] = {
    "function": (lambda shape, classes: len, "built a builtin_function_or_method: expected a torch.nn.Module"),
    "softmax": (ends_in(nn.Softmax(dim=1)), "gives probabilities: leave the softmax out"),
    "width": (ends_in(lambda y: y[:, :1]), r"answers \(6, 1\) for images of shape \(1, 1, 1\): expected \(6, 3\)"),
    "double": (ends_in(lambda y: y.double()), "answers in torch.float64"),
    "infinite": (ends_in(lambda y: y / 0), "logits that are not finite"),
    "batch": (ends_in(lambda y: y - y.mean(dim=0)), "answers differently in another batch"),
    "no gradient": (ends_in(lambda y: y * 0 + y.detach()), "no weight that a gradient reaches"),
    "seed": (seeds_itself, "has the same weights for another seed"),
    "tied": (tied, "weights that safetensors cannot keep"),
}


class Step(Recovery):
    def __init__(self, step: Callable[[Any], Any], repeats: int = 1) -> None:
        self.restore = step  # type: ignore[method-assign]
        self.repeats = repeats

    def restore(self, answers: Any) -> Any:  # type: ignore[no-redef]
        raise NotImplementedError


def written_to(rows: Any) -> Any:
    rows[:] = 1 / rows.shape[1]
    return rows.copy()


RESTORED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "double": (lambda rows: rows.astype(np.float64), "gave rows of float64: expected float32"),
    "sums": (lambda rows: rows * np.float32(0.9), "no probabilities"),
    "shape": (lambda rows: rows[:, :1], r"gave rows of shape \(50, 1\)"),
    "not finite": (lambda rows: np.where(rows > 0.5, np.float32("nan"), rows), "not finite"),
    "written to": (written_to, "changed the answers that it was given"),
    "global": (lambda rows: (np.random.random(), rows)[1], "disturbed the global random state"),
}


def trains(change: Callable[[Any, Any], Any]) -> VictimEntry:
    """Trained on the labels, and changed by what is given the context and the classifier."""

    def train(context: Any, spec: Any) -> Any:
        classifier = context.fresh_classifier()
        classifier.fit(context.dataset.x_train, context.dataset.y_train)
        return change(context, classifier) or classifier

    return VictimEntry("broken", train)


def softmaxed(context: Any, classifier: Any) -> None:
    from art_divqat.defences.postprocessor import Softmax

    classifier.set_params(postprocessing_defences=[Softmax()])


def widened(context: Any, classifier: Any) -> Any:
    from art_divqat.estimators import RecipeClassifier

    shape, classes = classifier.input_shape, classifier.nb_classes
    with torch.random.fork_rng():
        return RecipeClassifier(Net(shape, classes, nn.Identity()), shape, classes, context.recipe)


def further_seed(context: Any, classifier: Any) -> None:
    calls.append(0)
    with torch.no_grad():
        next(classifier.model.parameters()).add_(len(calls))


BROKEN_VICTIMS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "network": (lambda context, classifier: classifier.model, "trained to a SmallCNN: expected a RecipeClassifier"),
    "softmax": (softmaxed, "gives probabilities: logits are expected"),
    "other network": (widened, "has other weights than context.fresh_classifier"),
    "global": (lambda context, classifier: torch.rand(1) and None, "disturbed the global random state"),
    "seed": (further_seed, "gave two classifiers from one seed"),
    "test images": (
        lambda context, classifier: classifier.fit(context.dataset.x_test, context.dataset.y_test),
        "learns from the test images, or from those of the attacker",
    ),
    "data": (lambda context, classifier: context.dataset.y_train.sort(), "changed y_train of its data set"),
}


@pytest.mark.parametrize(("entry", "message"), DATA.values(), ids=DATA)
def test_broken_data_sets(entry: DatasetEntry, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_dataset(entry)


@pytest.mark.parametrize(("make", "message"), POOL.values(), ids=POOL)
def test_broken_pools(make: Callable[..., Any], message: str) -> None:
    with pytest.raises(AssertionError, match=f"The query pool .*{message}"):
        check_pool(PoolEntry("broken", make))


@pytest.mark.parametrize(("build", "message"), NETWORKS.values(), ids=NETWORKS)
def test_broken_architectures(build: Callable[..., Any], message: str) -> None:
    with pytest.raises(AssertionError, match=f"The model .*{message}"):
        check_architecture(ModelEntry("broken", build))


def test_an_architecture_that_is_no_two_layers() -> None:
    with pytest.raises(AssertionError, match="says two_layers and is not"):
        check_architecture(ModelEntry("broken", ends_in(nn.Identity()), two_layers=True))


@pytest.mark.parametrize(("step", "message"), RESTORED.values(), ids=RESTORED)
def test_broken_recoveries(step: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(AssertionError, match=f"The recovery .*{message}"):
        check_recovery(RecoveryEntry("broken", lambda request: Step(step)))


def test_a_recovery_that_asks_more_than_its_entry_says() -> None:
    with pytest.raises(AssertionError, match="asks each image 3 times, and its entry says 1"):
        check_recovery(RecoveryEntry("broken", lambda request: Step(Labels().restore, repeats=3)))


@pytest.mark.parametrize(("change", "message"), BROKEN_VICTIMS.values(), ids=BROKEN_VICTIMS)
def test_broken_victims(change: Callable[[Any, Any], Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_victim(trains(change))


def test_a_victim_that_trains_its_parent() -> None:
    entry = VictimEntry("its parent", lambda context, spec: context.parent, parent="standard")
    with pytest.raises(AssertionError, match="is its parent itself"):
        check_victim(entry)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(("pools", name) for name in POOLS),
        *(("datasets", name) for name in DATASETS if name == "digits"),
        *(("models", name) for name in MODELS if name not in ("vgg11", "vgg16")),
        *(("recoveries", f"{name}:beta=0.5" if name == "invert" else name) for name in RECOVERIES),
        *(("victims", name) for name in ("standard", "robust-fast", "ptq")),
        *(("attacks", name) for name in ("knockoff:recovery=average,repeats=3", "jbda:round_epochs=1")),
    ],
)
def test_ours_pass(kind: str, text: str) -> None:
    check(text, kind)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFENCES)
def test_our_defences_pass(name: str) -> None:
    check(name, "defences")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in VICTIMS if name not in ("standard", "robust-fast", "ptq", "external")]
)
def test_our_other_victims_pass(name: str) -> None:
    check(name, "victims")


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("labels", None, "'labels' is in recoveries and defences: say which, as in check"),
        ("knokoff", None, "Unknown name 'knokoff': did you mean knockoff"),
        ("lenet", "models", "Unknown model 'lenet': did you mean lenet5"),
        ("lenet5", "network", "Unknown kind of name 'network'"),
        ("lenet5:width=3", "models", "'lenet5' takes no parameters"),
        ("average:repeats=1", "recoveries", "'repeats' parameter"),
        ("robust:steps=0", "victims", "'steps' parameter of victim 'robust'"),
    ],
)
def test_names_that_cannot_be_checked(text: str, kind: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(text, kind)
