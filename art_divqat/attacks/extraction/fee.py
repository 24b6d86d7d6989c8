"""FunctionallyEquivalentExtraction on a leash: in its own process, within a time and a query limit."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from art_divqat._rng import derive_seed, isolated_random_state
from art_divqat._validation import check_float, check_int
from art_divqat.attacks.extraction import fee_worker
from art_divqat.attacks.extraction.plumbing import Asker, SafeExtraction, allocate, check_thief, fit_thief
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.models import TwoLayerPerceptron

logger = logging.getLogger(__name__)

# The parameters with which ART tests its own attack; with its defaults it did not end in five of six runs.
ART_PARAMETERS: Mapping[str, float] = {
    "delta_0": 3.5,
    "fraction_true": 0.03,
    "d2_min": 1e-20,
    "delta_value_max": 1,
    "d_step": 0.5,
}


def hidden_units(classifier: Any) -> int | None:
    """Width of the hidden layer if the classifier's network is linear, ReLU, linear and nothing else; otherwise None.

    That the attacker knows the architecture is the published attack's assumption.
    """
    network = getattr(classifier, "model", None)
    if isinstance(network, TwoLayerPerceptron):
        return network.hidden.out_features
    if isinstance(network, nn.Sequential):
        layers = [layer for layer in network if not isinstance(layer, nn.Flatten)]
        if [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear]:
            return int(network[-1].in_features)  # type: ignore[arg-type]
    return None


class _OutOfQueriesError(Exception):
    pass


class FunctionallyEquivalentExtraction(SafeExtraction):
    """f(x) = W₁ relu(W₀ x + b₀) + b₁ recovered from the kinks of f along random lines, by ART's attack, made to end.

    ART's loops have no limit of their own. Here ART runs in a process of its own, which sees numbers only: this process
    answers it through the meter with log-probabilities (the logits but for a constant that no softmax shows), counts,
    and ends it at `nb_stolen` queries or `time_limit` seconds. A run that gives up is started again from another seed
    while both limits allow. If none succeeds, the thief is trained on the answers that were paid for, and
    `details["completed"]` is 0. The images asked lie far outside [0, 1]: a service that clips or checks its input
    stops this attack.

    | Paper link: https://arxiv.org/abs/1909.01838 (Jagielski et al., USENIX Security 2020)

    :param classifier: the victim.
    :param num_neurons: width of the victim's hidden layer, which the attacker knows.
    :param nb_stolen: the query limit.
    :param time_limit: seconds of the process's own work, all attempts together; its start is not counted.
    :param scale: the attack's unit of length in pixels; small enough that the softmax does not saturate.
    :param batch_size_fit: for the thief of a failed attack.
    :param nb_epochs: for the thief of a failed attack.
    :param seed: decides every draw; an int in [0, 2³²).
    """

    attack_params: ClassVar[list[str]] = [
        *SafeExtraction.attack_params,
        "num_neurons",
        "nb_stolen",
        "time_limit",
        "scale",
        "batch_size_fit",
        "nb_epochs",
        "seed",
    ]

    def __init__(
        self,
        classifier: Any,
        num_neurons: int,
        nb_stolen: int = 20_000,
        *,
        time_limit: float = 60.0,
        scale: float = 0.1,
        batch_size_fit: int = 64,
        nb_epochs: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__(estimator=classifier)
        self.num_neurons = num_neurons
        self.nb_stolen = nb_stolen
        self.time_limit = time_limit
        self.scale = scale
        self.batch_size_fit = batch_size_fit
        self.nb_epochs = nb_epochs
        self.seed = seed
        self._check_params()

    def extract(self, x: NDArray[Any] | None = None, y: NDArray[Any] | None = None, **kwargs: Any) -> Any:
        """Spend up to `nb_stolen` queries; return the recovered network, or the thief trained on what was asked.

        :param x: not used: the attack chooses its own points.
        :param y: not used.
        :param thieved_classifier: a fresh PyTorch thief, trained in place if the attack fails.
        :raises UserError: for a thief of another class count, or if not one answer was usable.
        """
        del x, y
        thief = check_thief(self.estimator, kwargs.get("thieved_classifier"))
        shape = tuple(self.estimator.input_shape)
        self._asker = Asker(self.estimator, 512)
        self._images = allocate((self.nb_stolen, *shape))
        self._answers = allocate((self.nb_stolen, self.estimator.nb_classes))
        self._kept = 0
        weights, attempts, self._time_left = None, 0, self.time_limit
        while weights is None and self._kept < self.nb_stolen and self._time_left > 0 and not self._asker.stopped:
            attempts += 1
            with contextlib.suppress(_OutOfQueriesError, TimeoutError):
                weights = self._attempt(derive_seed("fee", self.seed, attempts) % 2**32)
        images, answers = self._images[: self._kept], self._asker.checked(self._answers[: self._kept])
        if weights is None:
            logger.warning("Functionally equivalent extraction did not succeed; the thief learns from what it asked.")
            with isolated_random_state("fee", self.seed):
                fit_thief(thief, images, answers, batch_size=self.batch_size_fit, nb_epochs=self.nb_epochs)
        else:
            thief = self._network(weights)
        agree = float((thief.predict(images).argmax(axis=1) == answers.argmax(axis=1)).mean())
        self._note(
            self._kept,
            self._asker,
            completed=float(weights is not None),
            attempts=float(attempts),
            agreement_on_own_queries=agree,
        )
        return thief

    def _attempt(self, seed: int) -> list[NDArray[np.float64]] | None:
        features = int(np.prod(self.estimator.input_shape))
        numbers = (features, self.estimator.nb_classes, self.num_neurons, seed, self.scale)
        options = [f"{name}={value}" for name, value in ART_PARAMETERS.items()]
        matrices: list[NDArray[np.float64]] = []
        with _worker([*map(str, numbers), *options]) as (process, messages):
            message = messages.get()  # the first question; until then the process only imports
            while len(matrices) < 4:
                if message is None or message[0] == fee_worker.FAILED:
                    return None
                kind, values = message
                if kind == fee_worker.RESULT:
                    matrices.append(values)
                else:
                    answers = self._answer(values)
                    if answers is None:
                        return None
                    with contextlib.suppress(BrokenPipeError):  # a process that has gone ends its messages with None
                        fee_worker.send(process.stdin, fee_worker.ANSWER, answers)
                if len(matrices) < 4:
                    message = self._next(messages)
        return matrices if all(np.isfinite(matrix).all() for matrix in matrices) else None

    def _next(self, messages: queue.Queue[Any]) -> Any:
        asked = time.monotonic()
        try:
            return messages.get(timeout=max(0.0, self._time_left))
        except queue.Empty:
            raise TimeoutError from None
        finally:
            self._time_left -= time.monotonic() - asked

    def _answer(self, flat: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Centred log-probabilities, or None where the run has lost its way: points that are no numbers."""
        if not np.isfinite(flat).all() or np.abs(flat).max() > 1e30:
            return None
        end = self._kept + len(flat)
        if end > self.nb_stolen:
            raise _OutOfQueriesError
        images = flat.reshape(-1, *self.estimator.input_shape).astype(np.float32)
        answers = self._asker.ask(images)
        usable = self._kept + len(answers)
        self._images[self._kept : usable] = images[: len(answers)]
        self._answers[self._kept : usable] = answers
        self._kept = usable
        if self._asker.stopped:
            return None
        logs = np.log(np.maximum(answers.astype(np.float64), 1e-37))
        return logs - logs.mean(axis=1, keepdims=True)

    def _network(self, weights: list[NDArray[np.float64]]) -> RecipeClassifier:
        first, first_bias, second, second_bias = (torch.from_numpy(matrix.astype(np.float32)) for matrix in weights)
        shape, classes = tuple(self.estimator.input_shape), self.estimator.nb_classes
        with isolated_random_state("fee network", self.seed):
            network = TwoLayerPerceptron(shape, classes, self.num_neurons)
        with torch.no_grad():
            network.hidden.weight.copy_(first.T)
            network.hidden.bias.copy_(first_bias.flatten())
            network.output.weight.copy_(second.T)
            network.output.bias.copy_(second_bias.flatten())
        recipe = TrainingRecipe(epochs=self.nb_epochs, batch_size=self.batch_size_fit)
        return RecipeClassifier(network.eval(), shape, classes, recipe, seed=self.seed)

    def _check_params(self) -> None:
        for name in ("num_neurons", "nb_stolen", "batch_size_fit", "nb_epochs"):
            check_int(self, name, getattr(self, name), 1)
        check_float(self, "time_limit", self.time_limit, 0, closed="neither")
        check_float(self, "scale", self.scale, 0, closed="neither")
        check_int(self, "seed", self.seed, 0, 2**32 - 1)


@contextlib.contextmanager
def _worker(arguments: list[str]) -> Iterator[tuple[Any, queue.Queue[Any]]]:
    """The process, and the messages it sends; None after the last. The process does not outlive the block."""
    home = str(Path(fee_worker.__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "art_divqat.attacks.extraction.fee_worker", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    messages: queue.Queue[Any] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        with contextlib.suppress(EOFError, OSError, ValueError):
            while True:
                messages.put(fee_worker.receive(process.stdout))  # type: ignore[arg-type]
        messages.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield process, messages
    finally:
        process.kill()
        process.wait()
        reader.join()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
