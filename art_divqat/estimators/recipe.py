"""Training recipe: train every network of a comparison in the same way, behind ART's `fit`.

ART's `PyTorchClassifier.fit` builds a data loader per call, has no schedule that survives a call, and shuffles with the
global generator. :class:`RecipeClassifier` is the same ART classifier with a loop of its own.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import Tensor, nn

from art_divqat._rng import derive_seed, isolated_random_state
from art_divqat._types import Progress
from art_divqat._validation import check_bool, check_choice, check_float, check_int
from art_divqat.data.checks import check_image_shape, check_pairs, check_targets
from art_divqat.data.stored import ImageSet, StoredImages, chunk_of
from art_divqat.errors import UserError
from art_divqat.estimators._names import LATER_OPTIONS
from art_divqat.estimators.descent import Descent, autocast
from art_divqat.estimators.memory_format import probe_memory_format, set_memory_format
from art_divqat.estimators.training_set import TrainingSet
from art_divqat.estimators.training_set import batches as batches

C = TypeVar("C", bound=PyTorchClassifier)


@dataclass(frozen=True)
class TrainingRecipe:
    """How a network is trained: optimiser, schedule, epochs, batch size, augmentation and arithmetic, nothing else.

    :param epochs: passes over the training images.
    :param batch_size: images a step.
    :param optimizer: `adam` or `sgd` (Nesterov momentum 0.9).
    :param learning_rate: at the start; in (0, inf).
    :param weight_decay: decoupled for `adam` (AdamW), L2 for `sgd`.
    :param schedule: `cosine` to zero over the whole run, `step` (×0.1 at 60 % and 85 % of it) or `constant`.
    :param augmentation: `none`; `flip`, each image mirrored left to right with probability 1/2; or `crop-flip`, also
        shifted by up to 4 pixels each way, with mirrored edges.
    :param warm_up: fraction of all steps, in [0, 1), over which the learning rate rises linearly from zero; a `cosine`
        falls over the rest.
    :param label_smoothing: ε in [0, 1): targets are (1 − ε) y + ε / classes.
    :param precision: of the passes: `float32`, as torch is set, or `bfloat16` autocast, which a GPU runs channels last.
        Weights, gradients and updates are float32 always.
    :param cuda_graphs: on a GPU, record the passes over one batch and replay them: small batches then no longer wait
        for the CPU to start kernels. No effect on the CPU.

    >>> TrainingRecipe(epochs=2).learning_rate_at(0.5)
    0.0005
    >>> TrainingRecipe(warm_up=0.2).learning_rate_at(0.1)
    0.0005
    """

    epochs: int = 20
    batch_size: int = 64
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    augmentation: str = "none"
    warm_up: float = 0.0
    label_smoothing: float = 0.0
    precision: str = "float32"
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        check_int(self, "epochs", self.epochs, 1)
        check_int(self, "batch_size", self.batch_size, 1)
        check_choice(self, "optimizer", self.optimizer, ("adam", "sgd"))
        check_float(self, "learning_rate", self.learning_rate, 0, closed="neither")
        check_float(self, "weight_decay", self.weight_decay, 0)
        check_choice(self, "schedule", self.schedule, ("cosine", "step", "constant"))
        check_choice(self, "augmentation", self.augmentation, ("none", "flip", "crop-flip"))
        check_float(self, "warm_up", self.warm_up, 0, 1, closed="left")
        check_float(self, "label_smoothing", self.label_smoothing, 0, 1, closed="left")
        check_choice(self, "precision", self.precision, ("float32", "bfloat16"))
        check_bool(self, "cuda_graphs", self.cuda_graphs)

    def learning_rate_at(self, fraction_done: float) -> float:
        """The learning rate after this fraction, in [0, 1], of all steps."""
        if fraction_done < self.warm_up:
            return self.learning_rate * fraction_done / self.warm_up
        if self.schedule == "cosine":
            fraction_done = (fraction_done - self.warm_up) / (1 - self.warm_up)
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * fraction_done))
        if self.schedule == "step":
            return self.learning_rate * 0.1 ** ((fraction_done >= 0.6) + (fraction_done >= 0.85))
        return self.learning_rate

    def build_optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """A fresh optimiser on the network's parameters."""
        parameters = [p for p in network.parameters() if p.requires_grad]
        if self.optimizer == "adam":
            return torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True)
        return torch.optim.SGD(
            parameters,
            lr=self.learning_rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=self.weight_decay,
            fused=True if any(p.is_cuda for p in parameters) else None,
        )

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values; newer options appear only if they are used.

        >>> TrainingRecipe().as_dict() == TrainingRecipe(augmentation="none").as_dict()
        True
        """
        usual = {field.name: field.default for field in fields(self)}
        values = asdict(self)
        return {name: value for name, value in values.items() if name not in LATER_OPTIONS or value != usual[name]}


def _as_tensor(values: NDArray[Any], dtype: Any) -> Tensor:
    """A tensor on the same memory where the type allows it, read-only and memory-mapped arrays included."""
    values = np.ascontiguousarray(values, dtype=dtype)
    with warnings.catch_warnings():
        # torch warns that it cannot protect a read-only array; training only reads it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def training_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """One step on the cross-entropy of a batch; returns the loss and the logits before the step, both detached."""
    optimizer.zero_grad(set_to_none=True)
    logits = network(images)
    loss = nn.functional.cross_entropy(logits, labels)
    loss.backward()
    optimizer.step()
    return loss.detach(), logits.detach()


def takes_stored_images(classifier: type[C]) -> type[C]:
    """Let a class's `fit` receive stored images unchanged: ART would load all of them into one array.

    ART's metaclass puts that function around every `fit` of a class's body; the class keeps its own as `_own_fit`.
    """
    classifier.fit = classifier.__dict__["_own_fit"]  # type: ignore[attr-defined]
    return classifier


@takes_stored_images
class RecipeClassifier(PyTorchClassifier):  # type: ignore[misc]
    """An ART `PyTorchClassifier` whose `fit` follows a :class:`TrainingRecipe`, from its own seed.

    The loss is cross-entropy, on class ids, one-hot rows or probabilities alike. Images are float32 NCHW in [0, 1].
    Cast to float32 on the way in, so that ART's decision-based attacks work with numpy 2.

    :param network: a logit-valued module; trained in place.
    :param input_shape: (channels, height, width).
    :param nb_classes: number of logits.
    :param recipe: how `fit` trains.
    :param seed: decides shuffling and dropout.
    :param device: `cpu`, `cuda` or `cuda:i`.
    :param postprocessing_defences: ART postprocessors on what `predict` returns.

    >>> from art_divqat.models import build_model
    >>> thief = RecipeClassifier(build_model("lenet5", (1, 8, 8), 10, seed=0), (1, 8, 8), 10, TrainingRecipe(epochs=1))
    >>> thief.fit(np.zeros((4, 1, 8, 8), np.float32), np.array([0, 1, 2, 3]))
    >>> thief.predict(np.zeros((4, 1, 8, 8))).shape
    (4, 10)
    """

    def __init__(
        self,
        network: nn.Module,
        input_shape: tuple[int, int, int],
        nb_classes: int,
        recipe: TrainingRecipe,
        *,
        seed: int = 0,
        device: str = "cpu",
        postprocessing_defences: Any = None,
    ) -> None:
        super().__init__(
            model=network,
            loss=nn.CrossEntropyLoss(),
            input_shape=input_shape,
            nb_classes=nb_classes,
            optimizer=recipe.build_optimizer(network.to(device)),
            clip_values=(0.0, 1.0),
            device_type="cpu" if device == "cpu" else "gpu",
            postprocessing_defences=postprocessing_defences,
        )
        if device != "cpu":
            # ART's "gpu" is the current CUDA device, whichever was asked for
            self._device = torch.device(device)
            self._model.to(self._device)
        self.recipe = recipe
        self.seed = seed
        self.progress: Progress | None = None
        self.training_losses: list[float] = []
        self._calls_to_fit = 0

    def fit(
        self,
        x: ImageSet,
        y: NDArray[Any],
        batch_size: int | None = None,
        nb_epochs: int | None = None,
        verbose: bool = False,
        rows: NDArray[np.int64] | None = None,
        **kwargs: Any,
    ) -> None:
        """Train in place by the recipe; ART attacks that pass `batch_size` and `nb_epochs` override it.

        The mean loss of each epoch is appended to `training_losses`.

        :param x: images of shape (N, C, H, W), in memory, memory-mapped or stored; no copy is made of float32 ones on
            the CPU, and on a GPU only of those that take less than 2 GiB, larger ones going there batch by batch.
        :param y: class ids (N,), or one-hot rows or probabilities (N, classes).
        :param rows: train on x[rows] without copying it: `y` then has one label a row; rows may repeat.
        :raises UserError: for no images, images of another shape, labels of another length or class count, or a loss
            that is not finite.
        """
        del verbose, kwargs
        self._learn(x, y, batch_size, nb_epochs, rows)

    _own_fit = fit

    def _learn(
        self,
        x: ImageSet,
        y: NDArray[Any],
        batch_size: int | None,
        nb_epochs: int | None,
        rows: NDArray[np.int64] | None,
    ) -> None:
        """What `fit` does, for a class to do otherwise: it is not hidden behind ART's function."""
        images, labels, order = self._check_training_set(x, np.asarray(y), rows)
        self._calls_to_fit += 1
        keys = self.seed, self._calls_to_fit
        with isolated_random_state("fit", *keys):
            data = TrainingSet(
                images,
                labels,
                order,
                self._device,
                augmentation=self.recipe.augmentation,
                seed=derive_seed("augmentation", *keys),
            )
            self._train(data, batch_size or self.recipe.batch_size, nb_epochs or self.recipe.epochs)

    def _check_training_set(
        self, x: ImageSet, y: NDArray[Any], rows: NDArray[np.int64] | None
    ) -> tuple[Tensor | StoredImages, Tensor, Tensor | None]:
        x = x if isinstance(x, StoredImages) else np.asanyarray(x)
        count = len(x) if rows is None else len(rows)
        check_pairs(count, len(y))
        check_image_shape(x, self.input_shape, "The network")
        targets = check_targets(y, count, "Labels", self.nb_classes)
        order = None if rows is None else _as_tensor(rows, np.int64)
        images = x if isinstance(x, StoredImages) else _as_tensor(x, np.float32)
        return images, _as_tensor(targets, targets.dtype), order

    def _train(self, data: TrainingSet, batch_size: int, epochs: int) -> None:
        generator = torch.Generator().manual_seed(derive_seed("shuffle", self.seed, self._calls_to_fit))
        network, optimizer, recipe = self.model, self._optimizer, self.recipe
        with autocast(recipe.precision, self._device):
            data.memory_format = probe_memory_format(network, data.first(2))
        set_memory_format(network, data.memory_format, optimizer)
        network.train()
        done, total = 0, epochs * len(batches(torch.arange(len(data)), batch_size))

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            logits = network(images).float()
            return nn.functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)

        descend = Descent(loss, network, optimizer, precision=recipe.precision, graph=recipe.cuda_graphs, steps=total)
        try:
            for _ in range(epochs):
                order = torch.randperm(len(data), generator=generator)
                epoch_loss = torch.zeros((), device=self._device)
                for images, labels in data.epoch(order, batch_size):
                    for group in optimizer.param_groups:
                        group["lr"] = recipe.learning_rate_at(done / total)
                    epoch_loss += descend(images, labels) * len(labels)
                    done += 1
                    if self.progress is not None:
                        self.progress(done, total)
                self.training_losses.append(self._check_loss(float(epoch_loss) / len(data), done))
        finally:
            descend.close()
            set_memory_format(network, torch.contiguous_format, optimizer)
            network.eval()

    def _check_loss(self, mean_loss: float, steps: int) -> float:
        if not math.isfinite(mean_loss):
            raise UserError(
                f"Training diverged: the loss is {mean_loss} after {steps} steps. Lower the learning rate "
                f"({self.recipe.learning_rate:g})."
            )
        return mean_loss

    def predict(self, x: NDArray[Any], batch_size: int = 512, **kwargs: Any) -> NDArray[Any]:
        """Logits, or what the postprocessors make of them, of shape (N, classes), float32; none for no images.

        ART's version uses a data loader, which draws from the global random state on every call; this one draws
        nothing.
        """
        del kwargs
        x = np.ascontiguousarray(x, dtype=np.float32)
        if len(x) == 0:
            return np.zeros((0, self.nb_classes), np.float32)
        x, _ = self._apply_preprocessing(x, y=None, fit=False)
        return self._apply_postprocessing(preds=self.logits(x, batch_size), fit=False)

    def logits(self, x: NDArray[Any], batch_size: int = 512) -> NDArray[np.float32]:
        """The network's own answer, without postprocessors; shape (N, classes)."""
        self.model.eval()
        # what a network makes of large images on its way takes many times what they take
        batch_size = chunk_of(x.shape[1:], batch_size)
        with torch.no_grad():
            parts = [
                self.model(_as_tensor(x[i : i + batch_size], np.float32).to(self._device)).cpu().numpy()
                for i in range(0, len(x), batch_size)
            ]
        return np.concatenate(parts) if parts else np.zeros((0, self.nb_classes), np.float32)

    def clone_for_refitting(self) -> RecipeClassifier:
        """Refused: ART's version keeps the weights of some modules, and a thief must never be a copy of the victim.

        :raises UserError: always.
        """
        raise UserError("Build a fresh network with build_model(name, shape, classes, seed=…) instead of a clone.")
