"""DFME and MAZE: data-free model extraction, where a generator draws the queries."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from art_divqat._rng import isolated_random_state
from art_divqat._validation import check_int
from art_divqat.attacks.extraction import parameters
from art_divqat.attacks.extraction._base import QueryClient, SafeExtraction, check_thief
from art_divqat.attacks.extraction.generator import Generator, forward_differences, image_of
from art_divqat.errors import UserError
from art_divqat.estimators.memory_format import probe_memory_format, set_memory_format
from art_divqat.parameters import Parameters, integer

Monitor = Callable[[int, Any], None]

# float32 softmax answers end near 1e-38; what lies below 1e-7 of mass is rounding, and log 0 would be infinite
_FLOOR = 1e-7


class _StoppedError(Exception):
    """The victim's answers became unusable: train no further."""


def recovered_logits(answers: Tensor) -> Tensor:
    """log max(y, 1e-7) − its mean over the classes: the victim's logits up to the constant that softmax forgets.

    >>> recovered_logits(torch.tensor([[0.5, 0.5, 0.0]])).round(decimals=2)
    tensor([[  5.1400,   5.1400, -10.2800]])
    """
    logs = answers.clamp(min=_FLOOR).log()
    return logs - logs.mean(dim=1, keepdim=True)


class DataFreeExtraction(SafeExtraction):
    """What DFME and MAZE share: a generator and a student that play against each other for the price of queries.

    One iteration is `generator_steps` steps of the generator, at batch_size × (directions + 1) queries each, and
    `student_steps` of the student, at batch_size queries each. Iterations go on while `nb_stolen` holds another;
    student steps spend the rest. Memory does not grow with the queries.

    :param classifier: the victim.
    :param nb_stolen: queries to spend, those of the gradient estimates included.
    :param batch_size: images a step.
    :param directions: m, random directions a gradient estimate.
    :param step: ε of the finite differences.
    :param generator_steps: a iteration.
    :param student_steps: an iteration.
    :param generator_rate: Adam's learning rate of the generator; falls to zero along a cosine.
    :param student_rate: learning rate of the student's SGD (momentum 0.9, weight decay 5e-4); falls along a cosine too.
    :param latent: length of the generator's z.
    :param width: filters of the generator's widest layer.
    :param seed: decides every draw; an int in [0, 2³²).
    :param monitor: called with (queries spent, thief) every `monitor_every` queries.
    :param monitor_every: queries between two calls.
    """

    declared: ClassVar[Parameters] = {"nb_stolen": integer(1_000_000, 1), **parameters.DFME, **parameters.SEED}
    attack_params: ClassVar[list[str]] = [*SafeExtraction.attack_params, *declared]

    def __init__(
        self,
        classifier: Any,
        nb_stolen: int = declared["nb_stolen"].default,
        *,
        batch_size: int = declared["batch_size"].default,
        directions: int = declared["directions"].default,
        step: float = declared["step"].default,
        generator_steps: int = declared["generator_steps"].default,
        student_steps: int = declared["student_steps"].default,
        generator_rate: float = declared["generator_rate"].default,
        student_rate: float = declared["student_rate"].default,
        latent: int = declared["latent"].default,
        width: int = declared["width"].default,
        seed: int = declared["seed"].default,
        monitor: Monitor | None = None,
        monitor_every: int = 10_000,
    ) -> None:
        super().__init__(estimator=classifier)
        self.nb_stolen = nb_stolen
        self.batch_size = batch_size
        self.directions = directions
        self.step = step
        self.generator_steps = generator_steps
        self.student_steps = student_steps
        self.generator_rate = generator_rate
        self.student_rate = student_rate
        self.latent = latent
        self.width = width
        self.seed = seed
        self.monitor = monitor
        self.monitor_every = monitor_every
        self._check_params()

    @property
    def queries_per_iteration(self) -> int:
        """batch_size × (generator_steps × (directions + 1) + student_steps)."""
        return parameters.data_free_step(vars(self))

    def extract(self, x: NDArray[Any] | None = None, y: NDArray[Any] | None = None, **kwargs: Any) -> Any:
        """Spend `nb_stolen` queries and return the thief, trained in place.

        :param x: not used: the attack has no data.
        :param y: not used.
        :param thieved_classifier: the fresh PyTorch thief to train.
        :raises UserError: for a budget smaller than one iteration, images with a side below 4 pixels, or a thief of
            another class count or without gradients.
        :raises QueryBudgetExceededError: when the victim's budget is spent first.
        """
        del x, y
        thief = check_thief(self.estimator, kwargs.get("thieved_classifier"), needs_gradients=True)
        if self.nb_stolen < self.queries_per_iteration:
            raise UserError(
                f"One iteration of {type(self).__name__} asks {self.queries_per_iteration} queries, more than the "
                f"{self.nb_stolen} to spend: give a smaller batch_size or a larger budget."
            )
        if min(thief.input_shape[1:]) < 4:
            raise UserError(f"The generator draws images of at least 4×4 pixels. Got {thief.input_shape}.")
        self._client = QueryClient(self.estimator, 8192)
        self._device = thief.device
        self._spent, self._reported = 0, 0
        with isolated_random_state(type(self).__name__, self.seed):
            self._start(thief)
            try:
                while self._spent + self.queries_per_iteration <= self.nb_stolen:
                    self._set_rates()
                    for _ in range(self.generator_steps):
                        self._generator_step()
                    for _ in range(self.student_steps):
                        self._student_step(self.batch_size)
                    self._after_iteration()
                    self._report(thief)
                while self._spent < self.nb_stolen:
                    self._student_step(min(self.batch_size, self.nb_stolen - self._spent))
            except _StoppedError:
                pass
            finally:
                set_memory_format(self._student, torch.contiguous_format)
        self._student.eval()
        self._note(self._spent, self._client, iterations=float(self._iterations))
        return thief

    def _start(self, thief: Any) -> None:
        self._student: nn.Module = thief.model
        two_images = torch.zeros(2, *thief.input_shape, device=self._device)
        set_memory_format(self._student, probe_memory_format(self._student, two_images))
        self._generator = Generator(thief.input_shape, self.latent, self.width).to(self._device).train()
        self._student_optimizer = torch.optim.SGD(
            self._student.parameters(), lr=self.student_rate, momentum=0.9, weight_decay=5e-4
        )
        self._generator_optimizer = torch.optim.Adam(self._generator.parameters(), lr=self.generator_rate)
        self._iterations = 0

    def _set_rates(self) -> None:
        fall = 0.5 * (1 + np.cos(np.pi * self._spent / self.nb_stolen))
        for optimizer, rate in (
            (self._student_optimizer, self.student_rate),
            (self._generator_optimizer, self.generator_rate),
        ):
            for group in optimizer.param_groups:
                group["lr"] = rate * fall

    def _draw(self, count: int) -> Tensor:
        return self._generator(torch.randn(count, self.latent, device=self._device))

    def _ask(self, images: Tensor) -> Tensor:
        answers = self._client.ask(images.detach().cpu().numpy())
        self._spent += len(images)
        if self._client.stopped:
            raise _StoppedError
        return torch.from_numpy(answers).to(self._device)

    @abc.abstractmethod
    def _gap(self, student_logits: Tensor, answers: Tensor) -> Tensor:
        """How far the student is from the victim, of shape (N,): the student lowers it, the generator raises it."""

    def _generator_step(self) -> None:
        """Raise the gap by its zeroth-order gradient with respect to the image before its sigmoid."""
        self._student.eval()
        before = self._draw(self.batch_size)

        def gap(values: Tensor) -> Tensor:
            images = image_of(values)
            with torch.no_grad():
                return self._gap(self._student(images), self._ask(images))

        at = before.detach()
        gradient = forward_differences(gap, at, gap(at), self.directions, self.step)
        self._generator_optimizer.zero_grad(set_to_none=True)
        before.backward(-gradient / len(at))
        self._generator_optimizer.step()

    def _student_step(self, count: int) -> None:
        with torch.no_grad():
            images = image_of(self._draw(count))
        self._learn(images, self._ask(images))

    def _learn(self, images: Tensor, answers: Tensor) -> None:
        # batch norm cannot train on one image; the one query left over is spent, and teaches nothing
        if len(images) < 2:
            return
        self._student.train()
        self._student_optimizer.zero_grad(set_to_none=True)
        self._gap(self._student(images), answers).mean().backward()
        self._student_optimizer.step()

    def _after_iteration(self) -> None:
        self._iterations += 1

    def _report(self, thief: Any) -> None:
        if self.monitor is not None and self._spent - self._reported >= self.monitor_every:
            self._reported = self._spent
            self._student.eval()
            self.monitor(self._spent, thief)

    def _check_params(self) -> None:
        super()._check_params()
        check_int(self, "monitor_every", self.monitor_every, 1)


def _last_of_each(slots: Tensor, size: int) -> Tensor:
    """The last row for each place below `size`, so that no place is written twice: a GPU writes in any order.

    >>> _last_of_each(torch.tensor([2, 0, 2, 9]), 3)
    tensor([1, 2])
    """
    places, first = np.unique(slots.numpy()[::-1], return_index=True)
    return torch.from_numpy(np.sort(len(slots) - 1 - first[places < size]))


class DFME(DataFreeExtraction):
    """L = ‖s(x) − v(x)‖₁ between the student's logits and the victim's, recovered and centred: data-free extraction.

    The student lowers L on the generator's images; the generator raises it by a forward-difference gradient, m = 1.

    | Paper link: https://arxiv.org/abs/2011.14779 (Truong et al., CVPR 2021)
    """

    def _gap(self, student_logits: Tensor, answers: Tensor) -> Tensor:
        return (student_logits - recovered_logits(answers)).abs().mean(dim=1)


class MAZE(DataFreeExtraction):
    """L = KL(v(x) ‖ s(x)) between the victim's answer and the student's, m = 10 directions, with experience replay.

    After each iteration the student also takes `replay_steps` steps on earlier images and their answers, which cost no
    query. The published attack keeps all of them; here a reservoir keeps a uniform sample of `replay_size`, so that
    memory stays flat.

    | Paper link: https://arxiv.org/abs/2005.03161 (Kariyappa et al., CVPR 2021)

    :param replay_size: images kept.
    :param replay_steps: steps on them an iteration.
    """

    declared: ClassVar[Parameters] = {**DataFreeExtraction.declared, **parameters.MAZE}
    attack_params: ClassVar[list[str]] = [*SafeExtraction.attack_params, *declared]

    def __init__(
        self,
        classifier: Any,
        nb_stolen: int = declared["nb_stolen"].default,
        *,
        directions: int = declared["directions"].default,
        replay_size: int = declared["replay_size"].default,
        replay_steps: int = declared["replay_steps"].default,
        **options: Any,
    ) -> None:
        self.replay_size = replay_size
        self.replay_steps = replay_steps
        super().__init__(classifier, nb_stolen, directions=directions, **options)

    def _start(self, thief: Any) -> None:
        super()._start(thief)
        self._images = torch.empty(self.replay_size, *thief.input_shape, device=self._device)
        self._answers = torch.empty(self.replay_size, thief.nb_classes, device=self._device)
        self._seen = 0

    def _gap(self, student_logits: Tensor, answers: Tensor) -> Tensor:
        logs = torch.log_softmax(student_logits, dim=1)
        return (torch.special.xlogy(answers, answers) - answers * logs).sum(dim=1)

    def _student_step(self, count: int) -> None:
        with torch.no_grad():
            images = image_of(self._draw(count))
        answers = self._ask(images)
        self._learn(images, answers)
        # reservoir sampling: every image seen so far is kept with the same probability
        numbers = torch.arange(self._seen, self._seen + count)
        slots = torch.where(
            numbers < self.replay_size, numbers, (torch.rand(count, dtype=torch.float64) * (numbers + 1)).long()
        )
        rows = _last_of_each(slots, self.replay_size)
        self._images[slots[rows]], self._answers[slots[rows]] = images[rows], answers[rows]
        self._seen += count

    def _after_iteration(self) -> None:
        super()._after_iteration()
        filled = min(self._seen, self.replay_size)
        for _ in range(self.replay_steps):
            rows = torch.randint(filled, (min(self.batch_size, filled),), device=self._device)
            self._learn(self._images[rows], self._answers[rows])
