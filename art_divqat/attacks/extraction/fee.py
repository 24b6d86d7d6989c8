"""FunctionallyEquivalentExtraction: run ART's attack in its own process, within a time and a query limit."""

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
from art_divqat.attacks.extraction import fee_worker
from art_divqat.attacks.extraction._base import QueryClient, SafeExtraction, allocate, check_thief, fit_thief
from art_divqat.attacks.extraction.parameters import FEE, SEED, TRAINING
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.models import TwoLayerPerceptron
from art_divqat.parameters import Parameters, integer

logger = logging.getLogger(__name__)

# The parameters with which ART tests its own attack; with its defaults it did not end in five of six runs.
ART_PARAMETERS: Mapping[str, float] = {
    "delta_0": 3.5,
    "fraction_true": 0.03,
    "d2_min": 1e-20,
    "delta_value_max": 1,
    "d_step": 0.5,
}

_TRIALS, _GOOD_ENOUGH = 100, 0.95


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


class FunctionallyEquivalentExtraction(SafeExtraction):
    """f(x) = W₁ relu(W₀ x + b₀) + b₁ recovered from the kinks of f along random lines, by ART's attack, made to end.

    ART runs in a process of its own, until `nb_stolen` queries or `time_limit` seconds are spent; several runs share
    both, and the best network that they recover is the thief. If none came out, the thief given is trained on the
    answers that were paid for, and `details["completed"]` is 0. The images asked lie far outside [0, 1]: a service that
    clips or checks its input stops this attack. `docs/attacks.md` has the details.

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

    declared: ClassVar[Parameters] = {
        "num_neurons": FEE["neurons"],
        "nb_stolen": integer(20_000, 1),
        "time_limit": FEE["time_limit"],
        "scale": FEE["scale"],
        **TRAINING,
        **SEED,
    }
    attack_params: ClassVar[list[str]] = [*SafeExtraction.attack_params, *declared]

    def __init__(
        self,
        classifier: Any,
        num_neurons: int,
        nb_stolen: int = declared["nb_stolen"].default,
        *,
        time_limit: float = declared["time_limit"].default,
        scale: float = declared["scale"].default,
        batch_size_fit: int = declared["batch_size_fit"].default,
        nb_epochs: int = declared["nb_epochs"].default,
        seed: int = declared["seed"].default,
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
        self._client = QueryClient(self.estimator, 512)
        self._images = allocate((self.nb_stolen, *shape))
        self._answers = allocate((self.nb_stolen, self.estimator.nb_classes))
        self._kept, self._runs, self._time_left = 0, 0, self.time_limit
        random = np.random.default_rng(self.seed)
        stolen, fidelity = None, 0.0
        for weights in self._recovered():
            candidate = self._network(weights)
            agreed = self._fidelity(candidate, random)
            if stolen is None or agreed > fidelity:
                stolen, fidelity = candidate, agreed
            if fidelity >= _GOOD_ENOUGH:
                break
        images, answers = self._images[: self._kept], self._client.checked(self._answers[: self._kept])
        self._note(
            self._kept,
            self._client,
            completed=float(stolen is not None),
            runs=float(self._runs),
            fidelity=fidelity,
        )
        if stolen is not None:
            return stolen
        logger.warning("Functionally equivalent extraction did not succeed; the thief learns from what it asked.")
        with isolated_random_state("fee", self.seed):
            fit_thief(thief, images, answers, batch_size=self.batch_size_fit, nb_epochs=self.nb_epochs)
        return thief

    def _recovered(self) -> Iterator[list[NDArray[np.float64]]]:
        """The weights that the worker's runs recover, until a limit is reached."""
        features = int(np.prod(self.estimator.input_shape))
        numbers = (features, self.estimator.nb_classes, self.num_neurons, derive_seed("fee", self.seed) % 2**32)
        options = [f"{name}={value}" for name, value in ART_PARAMETERS.items()]
        matrices: list[NDArray[np.float64]] = []
        started = 0  # queries before this run
        with _worker([*map(str, numbers), str(self.scale), *options]) as (process, messages):
            message = messages.get()  # the first question; until then the process only imports
            while message is not None and self._kept < self.nb_stolen and not self._client.stopped:
                kind, values = message
                if kind == fee_worker.ASK:
                    answers = None
                    if self._kept - started + len(values) <= max(self.nb_stolen // 4, 100):
                        answers = self._answer(values)
                    reply = (fee_worker.ABANDON, np.zeros((0, 0))) if answers is None else (fee_worker.ANSWER, answers)
                    with contextlib.suppress(BrokenPipeError):  # a process that has gone ends its messages with None
                        fee_worker.send(process.stdin, *reply)
                elif kind == fee_worker.RESULT:
                    matrices.append(values)
                if kind == fee_worker.FAILED or len(matrices) == 4:
                    self._runs += 1
                    solution, matrices, started = matrices, [], self._kept
                    if len(solution) == 4 and all(np.isfinite(matrix).all() for matrix in solution):
                        yield solution
                message = self._next(messages)

    def _fidelity(self, candidate: RecipeClassifier, random: np.random.Generator) -> float:
        """Agreement with the victim on up to 100 random images, which are paid for too."""
        count = min(_TRIALS, self.nb_stolen - self._kept)
        images = random.uniform(0, 1, (count, int(np.prod(self.estimator.input_shape))))
        answers = self._answer(images)
        if answers is None or count == 0:
            return 0.0
        queried = self._images[self._kept - count : self._kept]
        return float((candidate.predict(queried).argmax(axis=1) == answers.argmax(axis=1)).mean())

    def _next(self, messages: queue.Queue[Any]) -> Any:
        """The next message, or None when the process has gone or the time is up."""
        started = time.monotonic()
        try:
            return messages.get(timeout=max(0.0, self._time_left))
        except queue.Empty:
            return None
        finally:
            self._time_left -= time.monotonic() - started

    def _answer(self, flat: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Centred log-probabilities; None for points that are no numbers, with no queries left, or no usable answer."""
        if not np.isfinite(flat).all() or np.abs(flat).max() > 1e30:
            return None
        end = self._kept + len(flat)
        if end > self.nb_stolen:
            self._time_left = 0.0  # nothing more can be asked
            return None
        images = flat.reshape(-1, *self.estimator.input_shape).astype(np.float32)
        answers = self._client.ask(images)
        usable = self._kept + len(answers)
        self._images[self._kept : usable] = images[: len(answers)]
        self._answers[self._kept : usable] = answers
        self._kept = usable
        if self._client.stopped:
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
