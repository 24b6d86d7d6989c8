"""The quantization-aware training loop that QATTrainer and DivQATTrainer share."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from art_divqat._rng import isolated_random_state, torch_generator
from art_divqat._types import EpochProgress
from art_divqat.defences.trainer._preparation import SeenImages, class_ids, evaluation_batch
from art_divqat.defences.trainer._student import Student
from art_divqat.defences.trainer.adversary import PGDAdversary, PixelBounds
from art_divqat.defences.trainer.comparison import AccuracyComparison
from art_divqat.defences.trainer.mixtures import mixed
from art_divqat.defences.trainer.objective import confidence, divergence, spread
from art_divqat.errors import UserError
from art_divqat.estimators.recipe import batches
from art_divqat.quantization import QuantizationBackend


@dataclass(frozen=True)
class Batch:
    """Preprocessed images, class ids or probabilities, and the teacher's logits if already computed.

    With a frozen body, features replace the images, also the auxiliary images of an objective.
    """

    images: Tensor
    labels: Tensor
    teacher: Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """CE − alpha T² D(training) − Σ alpha_auxiliary (T² D − γ S − δ P)(auxiliary); see :class:`DivQATTrainer`.

    The sum has a second term, of weight `alpha_mixtures`, in which mixtures of features stand for auxiliary images.

    :param auxiliary: preprocessed auxiliary images, or None.
    :param auxiliary_teacher: the teacher's logits on them, computed once; None to ask it in each step.
    :param auxiliary_batch_size: how many of them join a step.
    :param spread_penalty: γ, the weight of the spread of the answers to auxiliary images.
    :param confidence_penalty: δ, the weight of their distance from the uniform answer.
    """

    alpha: float = 0.0
    alpha_auxiliary: float = 0.0
    temperature: float = 1.0
    kind: str = "js"
    cap: float | None = None
    auxiliary: Tensor | None = None
    auxiliary_teacher: Tensor | None = None
    auxiliary_batch_size: int = 0
    spread_penalty: float = 0.0
    confidence_penalty: float = 0.0
    alpha_mixtures: float = 0.0

    @property
    def uses_auxiliary(self) -> bool:
        """Whether auxiliary images take part in the loss."""
        return self.alpha_auxiliary > 0 and self.auxiliary is not None

    def pushed_apart(
        self, loss: Tensor, weight: float, teacher: Tensor, logits: Tensor, name: str, terms: dict[str, Tensor]
    ) -> Tensor:
        """loss − weight (T² D − γ S − δ P) of answers and the teacher's; D, S and P are noted in `terms`."""
        term = terms[f"divergence_{name}"] = divergence(teacher, logits, self.kind, self.temperature, self.cap)
        loss = loss - weight * self.temperature**2 * term
        for penalty, own in ((spread, self.spread_penalty), (confidence, self.confidence_penalty)):
            if own > 0:
                term = terms[f"{penalty.__name__}_{name}"] = penalty(logits)
                loss = loss + weight * own * term
        return loss


@dataclass
class EpochRecord:
    """What one epoch did. Losses are means over its images; accuracies are those of the twin, in [0, 1].

    :param divergence: mean D on training images, in nats; 0 where it is not part of the objective.
    :param divergence_auxiliary: likewise on auxiliary images.
    :param spread_auxiliary: mean spread of the answers to auxiliary images, in nats; 0 where it is not part of it.
    :param confidence_auxiliary: likewise their distance from the uniform answer.
    :param divergence_mixtures: as on auxiliary images, on mixtures of features; so are the other two.
    :param validation_accuracy: None without validation data.
    :param comparison: of the last epoch alone: the int8 network beside its full-precision teacher.
    """

    epoch: int
    loss: float
    cross_entropy: float
    divergence: float
    divergence_auxiliary: float
    train_accuracy: float
    learning_rate: float
    frozen: bool
    validation_accuracy: float | None = None
    validation_loss: float | None = None
    spread_auxiliary: float = 0.0
    confidence_auxiliary: float = 0.0
    divergence_mixtures: float = 0.0
    spread_mixtures: float = 0.0
    confidence_mixtures: float = 0.0
    comparison: AccuracyComparison | None = None


class QATLoop:
    """Trains a prepared network for some epochs and keeps its history and best validation state.

    Observers and batch norm are updated in the first epochs and frozen for the rest (`frozen_fraction`, rounded down,
    so a single epoch is never frozen): if the scales still moved, the weights would be tuned to outdated ones. Without
    a scheduler the learning rate falls to zero along half a cosine: weights that still jump over quantization steps at
    the end cost accuracy.
    Auxiliary images pass through the network in the same batch as the training images, so that batch norm sees in
    training what it sees when it is served. Mixtures of features join that batch before the head.

    :param teacher: images to the full-precision network's logits (N, classes).
    :param as_logits: from what the network gives to logits (N, classes); None where it gives them.
    :param cross_entropy: of logits and labels; the plain one if not given.
    """

    def __init__(
        self,
        student: Student,
        backend: QuantizationBackend,
        optimizer: torch.optim.Optimizer,
        objective: Objective,
        *,
        teacher: Callable[[Tensor], Tensor],
        seed: int,
        as_logits: Callable[[Tensor], Tensor] | None = None,
        cross_entropy: nn.Module | None = None,
        adversary: PGDAdversary | None = None,
        bounds: PixelBounds | None = None,
        frozen_fraction: float = 0.25,
        scheduler: Any = None,
        progress: EpochProgress | None = None,
        on_epoch: Callable[[EpochRecord], None] | None = None,
    ) -> None:
        self.student = student
        self.prepared = student.network
        self.backend = backend
        self.optimizer = optimizer
        self.objective = objective
        self.teacher = teacher
        self.seed = seed
        self.as_logits = as_logits
        self.cross_entropy = nn.CrossEntropyLoss() if cross_entropy is None else cross_entropy
        self.adversary = adversary
        self.bounds = bounds
        self.frozen_fraction = frozen_fraction
        self.scheduler = scheduler
        self.progress = progress
        self.on_epoch = on_epoch
        self.history: list[EpochRecord] = []
        self.holds_a_result = False
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._auxiliary_generator = torch_generator("auxiliary order", seed)
        self._auxiliary_order: Tensor | None = None
        self._attack_generator = torch_generator("adversary", seed)
        self._mixture_generator = torch_generator("feature mixtures", seed)

    def run(
        self,
        epochs: int,
        epoch_batches: Callable[[int], Iterable[Batch]],
        steps: int,
        validation: tuple[SeenImages, Tensor] | None,
    ) -> None:
        """Train; afterwards the network holds its best validation state, or its last one without validation data.

        Only the epochs after the freeze compete for the best state, if there are any: before it, the scales move.

        :raises UserError: for a loss that is not finite; the network then holds the best finite validation state.
        """
        freeze_at = epochs - int(epochs * self.frozen_fraction)
        best_accuracy, best_state = -1.0, None
        done = 0
        # Dropout and whatever else draws inside a network draws from the global generator.
        with isolated_random_state("quantization-aware training", self.seed):
            for epoch in range(epochs):
                frozen = epoch >= freeze_at
                self._set_mode(training=not frozen)
                if epoch == freeze_at and best_state is not None:
                    best_accuracy = -1.0
                totals = _Totals()
                for batch in epoch_batches(epoch):
                    if self.scheduler is None:
                        self._anneal(done / steps)
                    if not self._step(batch, totals, training=not frozen):
                        if best_state is not None:
                            self.prepared.load_state_dict(best_state)
                            self.holds_a_result = True
                        kept = "the best validation state so far was kept" if best_state else "nothing was kept"
                        raise UserError(
                            f"Training stopped in epoch {epoch + 1} of {epochs}: the loss is not finite, {kept}. Lower "
                            "the learning rate, or alpha and alpha_auxiliary, or bound the divergence (max_divergence)."
                        )
                    done += 1
                    if self.progress is not None:
                        self.progress(done, steps, f"epoch {epoch + 1}/{epochs}")
                record = totals.record(epoch + 1, float(self.optimizer.param_groups[0]["lr"]), frozen)
                if validation is not None:
                    record.validation_accuracy, record.validation_loss = self._validate(*validation)
                    if record.validation_accuracy >= best_accuracy:
                        best_accuracy = record.validation_accuracy
                        best_state = copy.deepcopy(self.prepared.state_dict())
                self.history.append(record)
                if self.on_epoch is not None:
                    self.on_epoch(record)
                self._step_scheduler(record)
        if best_state is not None:
            self.prepared.load_state_dict(best_state)
        self.holds_a_result = True

    def _step(self, batch: Batch, totals: _Totals, *, training: bool) -> bool:
        """One optimiser step; False if the loss is not finite, and then no step is made."""
        goal = self.objective
        images, labels = batch.images, batch.labels
        teacher = batch.teacher
        if self.adversary is not None:
            images = self._perturb(images, labels, training=training)
            teacher = None
        rows = len(images)
        auxiliary_rows = self._next_auxiliary() if goal.uses_auxiliary else None
        joined = images
        if auxiliary_rows is not None:
            assert goal.auxiliary is not None
            joined = torch.cat([images, goal.auxiliary[auxiliary_rows]])
        try:
            logits, mixtures = self._forward(joined, labels)
        except RuntimeError:
            # A fake quantizer raises on weights that are NaN or infinite before any loss could show them.
            if all(bool(torch.isfinite(parameter).all()) for parameter in self.prepared.parameters()):
                raise
            return False
        cross_entropy = self.cross_entropy(logits[:rows], labels)
        loss, squared = cross_entropy, goal.temperature**2
        terms: dict[str, Tensor] = {}
        if goal.alpha > 0:
            answers = self.teacher(images) if teacher is None else teacher
            term = divergence(answers, logits[:rows], goal.kind, goal.temperature, goal.cap)
            loss, terms["divergence"] = loss - goal.alpha * squared * term, term
        if auxiliary_rows is not None:
            known = goal.auxiliary_teacher
            answers = self.teacher(joined[rows:]) if known is None else known[auxiliary_rows]
            given = logits[rows : len(joined)]
            loss = goal.pushed_apart(loss, goal.alpha_auxiliary, answers, given, "auxiliary", terms)
        if mixtures is not None:
            answers = self._as_logits(self.student.teachers_head(mixtures))
            given = logits[len(joined) :]
            loss = goal.pushed_apart(loss, goal.alpha_mixtures, answers, given, "mixtures", terms)
        with torch.no_grad():
            correct = (logits[:rows].argmax(dim=1) == class_ids(labels)).sum()
            # all at once: a GPU is waited for here, because no step may be made on a loss that is not finite
            value, entropy, right, *others = torch.stack(
                [loss, cross_entropy, correct.to(loss.dtype), *terms.values()]
            ).tolist()
        if not math.isfinite(value):
            return False
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.student.centring is None:
            self.optimizer.step()
        else:
            self.student.centring.step(self.optimizer)
        totals.add(rows, int(right), {"loss": value, "cross_entropy": entropy, **dict(zip(terms, others, strict=True))})
        return True

    def _forward(self, joined: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits of images and, after them, of mixtures of the labelled ones' features; and these mixtures, if any."""
        if self.objective.alpha_mixtures == 0:
            return self._logits(joined), None
        features = self.student.features(joined)
        mixtures = mixed(features[: len(labels)], labels, self._mixture_generator)
        logits = self._as_logits(self.student.head(torch.cat([features, mixtures])))
        return logits, mixtures if len(mixtures) else None

    def _logits(self, images: Tensor) -> Tensor:
        return self._as_logits(self.student(images))

    def _as_logits(self, answers: Tensor) -> Tensor:
        return answers if self.as_logits is None else self.as_logits(answers)

    def _set_mode(self, *, training: bool) -> None:
        """Train mode with moving observers, or eval mode with neither."""
        self.backend.set_mode(self.prepared, training=training, observe=training)
        self.student.follow(training=training)

    def _perturb(self, images: Tensor, labels: Tensor, *, training: bool) -> Tensor:
        assert self.adversary is not None
        assert self.bounds is not None
        self._set_mode(training=False)
        targets = class_ids(labels)
        perturbed = self.adversary.perturb(self._logits, images, targets, self._attack_generator, self.bounds)
        self._set_mode(training=training)
        return perturbed

    def _next_auxiliary(self) -> Tensor:
        assert self.objective.auxiliary is not None
        size = self.objective.auxiliary_batch_size
        order = self._auxiliary_order
        if order is None or len(order) < size:
            order = torch.randperm(len(self.objective.auxiliary), generator=self._auxiliary_generator)
            order = order.to(self.objective.auxiliary.device)
        self._auxiliary_order = order[size:]
        return order[:size]

    def _validate(self, images: SeenImages, labels: Tensor) -> tuple[float, float]:
        self._set_mode(training=False)
        with torch.no_grad():
            logits = torch.cat([self._logits(part) for part in images.split(evaluation_batch(images))])
        accuracy = float((logits.argmax(dim=1) == labels).float().mean())
        return accuracy, float(functional.cross_entropy(logits, labels))

    def _anneal(self, fraction_done: float) -> None:
        factor = 0.5 * (1 + math.cos(math.pi * min(fraction_done, 1.0)))
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def _step_scheduler(self, record: EpochRecord) -> None:
        if self.scheduler is None:
            return
        wants_metric = "metrics" in inspect.signature(self.scheduler.step).parameters
        if wants_metric:  # ReduceLROnPlateau
            self.scheduler.step(record.loss if record.validation_loss is None else record.validation_loss)
            return
        with warnings.catch_warnings():
            # A scheduler that was rebound to another optimizer warns that it never saw that one step.
            warnings.filterwarnings("ignore", message="Seems like `optimizer.step\\(\\)`")
            self.scheduler.step()


class _Totals:
    """Sums over an epoch."""

    def __init__(self) -> None:
        self.rows = self.correct = 0
        self.sums: dict[str, float] = {"divergence": 0.0, "divergence_auxiliary": 0.0}

    def add(self, rows: int, correct: int, means: dict[str, float]) -> None:
        self.rows += rows
        self.correct += correct
        for name, mean in means.items():
            self.sums[name] = self.sums.get(name, 0.0) + rows * mean

    def record(self, epoch: int, learning_rate: float, frozen: bool) -> EpochRecord:
        if self.rows == 0:
            raise UserError("An epoch had no images: the generator gave none.")
        means: dict[str, Any] = {name: total / self.rows for name, total in self.sums.items()}
        return EpochRecord(
            epoch=epoch,
            train_accuracy=self.correct / self.rows,
            learning_rate=learning_rate,
            frozen=frozen,
            **means,
        )


def shuffled_batches(
    images: SeenImages, labels: Tensor, teacher: Tensor | None, batch_size: int, seed: int
) -> Callable[[int], Iterator[Batch]]:
    """The images in a new order every epoch, from a generator of their own; never a last batch of one."""
    generator = torch_generator("training order", seed)

    def epoch_batches(epoch: int) -> Iterator[Batch]:
        order = torch.randperm(len(images), generator=generator).to(images.device)
        for rows in batches(order, batch_size):
            yield Batch(images[rows], labels[rows], None if teacher is None else teacher[rows])

    return epoch_batches
