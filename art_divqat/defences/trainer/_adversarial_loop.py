"""Adversarial training loop, shared by every robust trainer.

min over θ of the mean over images of max over |x' − x| ≤ ε of the loss.

A method defines how it perturbs a batch and the loss on the result. Everything else is here, once: batches that
never leave the device, the classifier's own optimiser and schedule, model selection, history, progress, one seed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from art.defences.trainer.trainer import Trainer
from numpy.typing import NDArray
from torch import Tensor, nn

from art_divqat._rng import derive_seed, isolated_random_state
from art_divqat._types import Progress
from art_divqat._validation import check_choice, check_float, check_int
from art_divqat.attacks.evasion.ball import check_epsilon, check_steps
from art_divqat.attacks.evasion.networks import differentiable_preprocessing
from art_divqat.data.checks import check_labels, float_images
from art_divqat.defences.trainer._inner_copy import InnerCopy
from art_divqat.errors import UserError
from art_divqat.estimators.conventions import (
    check_answers,
    class_logits,
    cross_entropy_like,
    gives_one_value,
    main_answer,
    pixel_range,
    to_unit,
    warn_of_other_loss,
)
from art_divqat.estimators.descent import STEPS_WORTH_A_GRAPH, Descent, autocast
from art_divqat.estimators.memory_format import probe_memory_format, set_memory_format
from art_divqat.estimators.recipe import TrainingRecipe
from art_divqat.estimators.training_set import TrainingSet, batches

Batches = Iterator[tuple[Tensor, Tensor]]


class AdversarialLoop(Trainer):  # type: ignore[misc]
    """The common part of the robust trainers; a subclass gives :meth:`_perturb` and :meth:`_loss`.

    :param classifier: an ART `PyTorchClassifier` with an optimiser; trained in place. A `RecipeClassifier` keeps its
        learning-rate schedule, augmentation, label smoothing, precision and CUDA graphs. Its loss is cross-entropy
        (class weights and label smoothing count), `NLLLoss` behind a log-softmax, or `BCEWithLogitsLoss` behind a
        single logit; its images lie in its `clip_values`.
    :param epsilon: L∞ radius in (0, 1], as a share of the range of pixels: images in 0–255 are brought to [0, 1].
    :param nb_epochs: passes over the images.
    :param batch_size: images a step.
    :param max_iter: inner steps of the attack.
    :param eps_step: size of one inner step; by default min(ε, 2.5 ε / max_iter).
    :param inner_precision: of the attack's passes only: `float32`, `bfloat16`, or `auto`, which is `bfloat16` where the
        device computes in it natively. Weights, updates and validation are float32 always.
    :param warm_up: fraction of the run over which the radius grows from 0 to ε; in [0, 1].
    :param seed: decides shuffling, starts and dropout; the global random state is left alone.
    :param progress: called with (steps done, steps) after each step.
    :raises UserError: for a parameter out of range, such as an ε in 0–255 units, or a classifier that cannot train.
    """

    def __init__(
        self,
        classifier: Any,
        *,
        epsilon: float,
        nb_epochs: int = 20,
        batch_size: int = 64,
        max_iter: int = 7,
        eps_step: float | None = None,
        inner_precision: str = "auto",
        warm_up: float = 0.0,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(classifier)
        self.epsilon = check_epsilon(self, epsilon, zero=False)
        self.nb_epochs = check_int(self, "nb_epochs", nb_epochs, 1)
        self.batch_size = check_int(self, "batch_size", batch_size, 1)
        self.max_iter = check_int(self, "max_iter", max_iter, 1)
        self.eps_step = check_steps(self, self.epsilon, max_iter, eps_step)
        self.warm_up = check_float(self, "warm_up", warm_up, 0, 1)
        self.seed = check_int(self, "seed", seed)
        self.progress = progress
        self.history: list[dict[str, float]] = []
        self._fraction_done = 0.0
        network, optimizer = getattr(classifier, "model", None), getattr(classifier, "optimizer", None)
        if not isinstance(network, nn.Module) or not isinstance(optimizer, torch.optim.Optimizer):
            raise UserError(f"{type(self).__name__} needs an ART PyTorchClassifier with an optimiser.")
        if not isinstance(classifier.loss, (nn.CrossEntropyLoss, nn.NLLLoss)) and not gives_one_value(classifier):
            raise UserError(
                f"{type(self).__name__} needs a classifier whose loss is torch.nn.CrossEntropyLoss, NLLLoss or, for a "
                f"single logit, BCEWithLogitsLoss. Got {type(classifier.loss).__name__}."
            )
        check_answers(self, classifier)
        warn_of_other_loss(self, classifier)
        self._range = pixel_range(classifier)
        self._network: nn.Module = network
        self._optimizer = optimizer
        self._device: torch.device = classifier.device
        preprocess = differentiable_preprocessing(classifier)
        self._as_logits = class_logits(classifier)
        check_choice(self, "inner_precision", inner_precision, ("auto", "float32", "bfloat16"))
        if inner_precision == "auto":
            inner_precision = "bfloat16" if _computes_bfloat16(self._device) else "float32"
        self.inner_precision = inner_precision
        self._preprocess = preprocess
        self._recipe: TrainingRecipe | None = getattr(classifier, "recipe", None)
        # what is not said is as in training without a recipe
        self._settings = self._recipe or TrainingRecipe()
        self._criterion = cross_entropy_like(classifier.loss).to(classifier.device)
        self._criterion.label_smoothing = self._settings.label_smoothing or self._criterion.label_smoothing
        self._copy: InnerCopy | None = None
        self._descent: Descent | None = None
        self._generator = torch.Generator(self._device)

    def fit(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        validation_data: tuple[NDArray[Any], NDArray[Any]] | None = None,
        batch_size: int | None = None,
        nb_epochs: int | None = None,
        scheduler: Any = None,
        verbose: bool = False,
        **kwargs: Any,
    ) -> None:
        """Train the classifier in place; `history` then has the losses, and the accuracies on validation data.

        :param x: images of shape (N, C, H, W) in the classifier's `clip_values`; in [0, 1] if it has none.
        :param y: class ids (N,) or one-hot rows.
        :param validation_data: images and labels. If given, the weights of the epoch with the highest robust accuracy
            on them (PGD, ten steps) are kept.
        :param batch_size: instead of the trainer's.
        :param nb_epochs: instead of the trainer's.
        :param scheduler: anything with a `step()`, called after every epoch; a recipe's schedule then rests.
        :param verbose: accepted for ART's sake; use `progress`.
        :raises UserError: for bad images or labels, an unknown argument, or a loss that is not finite.
        """
        del verbose
        self._check_arguments(kwargs, scheduler)
        images, labels = self._checked(x, y)
        self._fit(
            images, labels, validation_data, batch_size or self.batch_size, nb_epochs or self.nb_epochs, scheduler
        )

    def fit_generator(
        self,
        generator: Any,
        nb_epochs: int | None = None,
        validation_data: tuple[NDArray[Any], NDArray[Any]] | None = None,
        scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """Train on an ART `DataGenerator`, whose `size` and `batch_size` say how many batches an epoch has.

        :raises UserError: as :meth:`fit`, or for a generator of unknown size.
        """
        self._check_arguments(kwargs, scheduler)
        if generator.size is None:
            raise UserError(f"{type(self).__name__} needs a generator of known size.")
        count = math.ceil(generator.size / generator.batch_size)
        epochs = nb_epochs or self.nb_epochs

        def epoch() -> Batches:
            return (self._to_device(*generator.get_batch()) for _ in range(count))

        self._run(epoch, count, epochs, self._validation(validation_data), scheduler, self.progress)

    def predict(self, x: NDArray[Any], **kwargs: Any) -> NDArray[Any]:
        """The classifier's answers."""
        return self._classifier.predict(x, **kwargs)

    def _perturb(self, images: Tensor, labels: Tensor, radius: float) -> Tensor:
        """Perturbed images for one batch; the network is in evaluation mode."""
        raise NotImplementedError

    def _loss(self, images: Tensor, perturbed: Tensor, labels: Tensor) -> Tensor:
        """The loss to descend on; the network is in training mode."""
        del images
        return self._cross_entropy(self._logits(perturbed), labels)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy of the outer step: the classifier's, with the recipe's label smoothing."""
        return self._criterion(logits, labels)

    def _update(self, images: Tensor, perturbed: Tensor, labels: Tensor) -> Tensor:
        """One step of the optimiser; returns the loss."""
        assert self._descent is not None
        return self._descent(images, perturbed, labels)

    def _logits(self, x: Tensor) -> Tensor:
        """The network's answer to images, float32."""
        return self._as_logits(main_answer(self._network(self._prepared(x))).float())

    def _prepared(self, x: Tensor) -> Tensor:
        return x if self._preprocess is None else self._preprocess(x)

    def _inner(self, x: Tensor) -> Tensor:
        """Logits for the attack: of the network, or of its copy in lower precision."""
        return self._logits(x) if self._copy is None else self._as_logits(self._copy(self._prepared(x)))

    def _follow(self, images: Tensor, steps: int) -> None:
        """Bring the copy to the network's present weights and statistics."""
        if self.inner_precision == "float32":
            return
        if self._copy is None:
            self._copy = InnerCopy(self._network)
            if images.is_cuda and self._settings.cuda_graphs and steps >= STEPS_WORTH_A_GRAPH:
                self._copy.record(self._prepared(images))
        self._copy.follow()

    def _ascend(self, start: Tensor, images: Tensor, objective: Callable[[Tensor], Tensor], radius: float) -> Tensor:
        """`max_iter` signed gradient steps on `objective`, back into the ball and [0, 1] after each."""
        low, high = (images - radius).clamp_(0, 1), (images + radius).clamp_(0, 1)
        size, point = self.eps_step * radius / self.epsilon, start
        for _ in range(self.max_iter):
            point.requires_grad_(True)
            (gradient,) = torch.autograd.grad(objective(point), point)
            point = torch.minimum(torch.maximum(point.detach().add_(gradient.sign_(), alpha=size), low), high)
        return point

    def _uniform_start(self, images: Tensor, radius: float) -> Tensor:
        noise = torch.empty_like(images).uniform_(generator=self._generator)
        return noise.mul_(2 * radius).sub_(radius).add_(images).clamp_(0, 1)

    def _fit(
        self, images: Tensor, labels: Tensor, validation_data: Any, batch_size: int, epochs: int, scheduler: Any
    ) -> None:
        count = len(batches(torch.arange(len(images)), batch_size))
        epoch = self._shuffled(images, labels, batch_size)
        self._run(epoch, count, epochs, self._validation(validation_data), scheduler, self.progress)

    def _shuffled(self, images: Tensor, labels: Tensor, batch_size: int) -> Callable[[], Batches]:
        shuffle = torch.Generator().manual_seed(derive_seed("robust-shuffle", self.seed))
        seed = derive_seed("robust-augmentation", self.seed)
        data = TrainingSet(images, labels, None, self._device, augmentation=self._settings.augmentation, seed=seed)

        def epoch() -> Batches:
            return data.epoch(torch.randperm(len(data), generator=shuffle), batch_size)

        return epoch

    def _run(
        self,
        epoch: Callable[[], Iterable[tuple[Tensor, Tensor]]],
        count: int,
        epochs: int,
        validation: tuple[Tensor, Tensor] | None = None,
        scheduler: Any = None,
        progress: Progress | None = None,
    ) -> None:
        """Train for `epochs` epochs of `count` batches; `progress` is called with (steps done, `count` · `epochs`)."""
        recipe, settings = self._recipe if scheduler is None else None, self._settings
        done, total, best, best_state = 0, count * epochs, -1.0, None
        self._generator.manual_seed(derive_seed("robust-starts", self.seed))
        with self._running(total):
            for _ in range(epochs):
                summed, seen = torch.zeros((), device=self._device), 0
                for images, labels in epoch():
                    if done == 0:
                        # a third faster on the CPU, in the attack and in the step
                        with autocast(settings.precision, self._device):
                            fastest = probe_memory_format(self._network, images[:2], self._logits)
                        set_memory_format(self._network, fastest, self._optimizer)
                    if self._device.type != "cpu":
                        images = images.contiguous(memory_format=fastest)
                    if recipe is not None:
                        for group in self._optimizer.param_groups:
                            group["lr"] = recipe.learning_rate_at(done / total)
                    self._fraction_done = done / total
                    radius = self.epsilon * min(1.0, (done + 1) / (self.warm_up * total + 1e-9))
                    self._network.eval()
                    self._follow(images, total)
                    perturbed = self._perturb(images, labels, radius)
                    self._network.train()
                    summed += self._update(images, perturbed, labels) * len(images)
                    seen, done = seen + len(images), done + 1
                    if progress is not None:
                        progress(done, total)
                if scheduler is not None:
                    scheduler.step()
                self._network.eval()
                self.history.append({"epoch": len(self.history) + 1, "loss": float(summed) / max(seen, 1)})
                if not math.isfinite(self.history[-1]["loss"]):
                    raise UserError(f"Training diverged after {done} steps: lower the learning rate or ε.")
                if validation is not None:
                    clean, robust = self._validate(*validation)
                    self.history[-1] |= {"validation_accuracy": clean, "validation_robust_accuracy": robust}
                    if robust > best:
                        best = robust
                        best_state = {k: v.detach().clone() for k, v in self._network.state_dict().items()}
        if best_state is not None:
            self._network.load_state_dict(best_state)

    @contextlib.contextmanager
    def _running(self, steps: int) -> Iterator[None]:
        """Seeds, the optimiser's steps and the copy of the network, inside alone; the network's format as before."""
        settings = self._settings
        self._descent = Descent(
            self._loss,
            self._network,
            self._optimizer,
            precision=settings.precision,
            graph=settings.cuda_graphs,
            steps=steps,
        )
        try:
            with isolated_random_state("robust-fit", self.seed):
                yield
        finally:
            self._descent.close()
            self._descent = self._copy = None
            set_memory_format(self._network, torch.contiguous_format, self._optimizer)

    def _validate(self, images: Tensor, labels: Tensor) -> tuple[float, float]:
        """Clean accuracy, and accuracy under PGD from one random start, of ten steps."""
        from art_divqat.attacks.evasion import craft

        x, y = images.cpu().numpy(), labels.cpu().numpy()
        crafted = craft(
            self._classifier,
            x,
            y,
            epsilon=self.epsilon,
            steps=10,
            seed=derive_seed("robust-validation", self.seed),
            early_stop=True,
        )
        with torch.no_grad():
            answers = (
                torch.cat([self._logits(part).argmax(1) for part in source.split(512)])
                for source in (images, torch.from_numpy(crafted).to(self._device))
            )
            clean, robust = (float((answer == labels).float().mean()) for answer in answers)
        return clean, robust

    def _validation(self, data: tuple[NDArray[Any], NDArray[Any]] | None) -> tuple[Tensor, Tensor] | None:
        return None if data is None else self._to_device(*data)

    def _to_device(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[Tensor, Tensor]:
        images, labels = self._checked(x, y)
        return images.to(self._device), labels.to(self._device)

    def _checked(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[Tensor, Tensor]:
        clip_values = (0.0, 1.0) if self._range is None else self._range
        images = to_unit(float_images(x, "Images", clip_values=clip_values), self._range)
        labels = check_labels(y, len(images), "Labels", self._classifier.nb_classes)
        if len(images) == 0:
            raise UserError(f"{type(self).__name__} needs at least one image.")
        return torch.from_numpy(images), torch.from_numpy(labels)

    def _check_arguments(self, kwargs: dict[str, Any], scheduler: Any) -> None:
        if kwargs:
            raise UserError(f"{type(self).__name__} knows no argument {', '.join(map(repr, kwargs))} of fit.")
        if scheduler is not None and not callable(getattr(scheduler, "step", None)):
            raise UserError(f"A scheduler needs a step() method. Got {type(scheduler).__name__}.")


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is arithmetic of the device and not emulated; then the attack's passes cost about half."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    checks = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return device.type == "cpu" and any(check() for check in checks if check is not None)
