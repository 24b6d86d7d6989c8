"""Targets of evasion attacks: logits of a module, an ART classifier, or a `predict` function."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from art_divqat.errors import UserError
from art_divqat.estimators.conventions import (
    are_probabilities,
    class_logits,
    keeping_modes,
    pixel_range,
    unit_predict,
)
from art_divqat.estimators.memory_format import probe_memory_format, set_memory_format

LogitFunction = Callable[[Tensor], Tensor]


def differentiable_preprocessing(classifier: Any) -> LogitFunction | None:
    """What stands between images in [0, 1] and an ART classifier's network, as a torch function; None for nothing.

    That is the way into its `clip_values`, and its preprocessing.

    :raises UserError: for a preprocessor that has no torch form, or clip values that are not finite.
    """
    from art.defences.preprocessor.preprocessor import PreprocessorPyTorch

    bounds = pixel_range(classifier)

    operations = list(getattr(classifier, "preprocessing_operations", None) or [])
    for operation in operations:
        if not isinstance(operation, PreprocessorPyTorch):
            raise UserError(
                f"{type(operation).__name__} before the network cannot be differentiated through. Give the network "
                "itself, or use attack='square' on the classifier's predict."
            )
    operations = [operation for operation in operations if not _does_nothing(operation)]
    if not operations and bounds is None:
        return None

    def preprocess(x: Tensor) -> Tensor:
        if bounds is not None:
            low, high = (torch.from_numpy(bound).to(x.device) for bound in bounds)
            x = low + x * (high - low)
        for operation in operations:
            x, _ = operation.forward(x, None)
        return x

    return preprocess


def _does_nothing(operation: Any) -> bool:
    """Whether it subtracts 0 and divides by 1, which is what ART makes of no preprocessing.

    Its `forward` makes a tensor of both in each call, for which a GPU is waited for.
    """
    mean, std = getattr(operation, "mean", None), getattr(operation, "std", None)
    return mean is not None and std is not None and bool(np.all(np.equal(mean, 0)) and np.all(np.equal(std, 1)))


class Target:
    """The few attributes of a module that torchattacks uses, around any network, so that the network stays as it was.

    torchattacks asks the parameters for the device (an int8 module has none), calls `eval()` (exported modules refuse)
    and afterwards `train()`, which would wake batch norms that were frozen. None of these reach the network here.
    """

    training = False

    def __init__(self, target: Any, device: str | torch.device | None, *, gradients: bool) -> None:
        network: Any = target
        self._preprocess: LogitFunction | None = None
        self._as_logits: LogitFunction | None = None
        if not isinstance(target, nn.Module):
            behind = getattr(target, "twin", getattr(target, "model", None))
            if isinstance(behind, nn.Module) and (gradients or not hasattr(target, "twin")):
                network = behind
                self._preprocess = differentiable_preprocessing(target)
                self._as_logits = class_logits(target)
            elif hasattr(target, "predict"):
                # `model` of an int8 classifier is its twin too; what answers is behind `predict`
                network = unit_predict(target)
        self.network: nn.Module | None = network if isinstance(network, nn.Module) else None
        if self.network is None and not callable(network):
            raise UserError(
                f"An attack needs a torch module, an ART PyTorch classifier or a predict function. "
                f"Got {type(target).__name__}."
            )
        if self.network is None and gradients:
            raise UserError(
                "A predict function gives no gradients. Of the attacks only 'square' works on it; for the others give "
                "the network, or craft on a surrogate and transfer."
            )
        self._function: Callable[[Any], Any] = network
        if device is None:
            first = next(self.network.parameters(), None) if self.network is not None else None
            device = first.device if first is not None else torch.device("cpu")
        self.device = torch.device(device)
        self._is_channels_last = False
        self._gives_probabilities = False

    def __call__(self, x: Tensor) -> Tensor:
        if self.network is None:
            scores: NDArray[Any] = np.asarray(self._function(x.detach().cpu().numpy()), dtype=np.float32)
            return torch.from_numpy(scores.copy()).to(self.device)
        answers = self.network(x if self._preprocess is None else self._preprocess(x))
        answers = answers if self._as_logits is None else self._as_logits(answers)
        return answers.clamp_min(torch.finfo(answers.dtype).tiny).log() if self._gives_probabilities else answers

    def read_answers(self, x: Tensor) -> None:
        """Take the logarithm of a network's answers from here on if those to `x` are probabilities.

        A softmax of a softmax is flat: an attack that climbs it finds little, and robustness looks high.
        """
        if self.network is not None:
            with torch.no_grad():
                answers = self(x)
            matrix = isinstance(answers, Tensor) and answers.ndim == 2 and answers.shape[1] > 1
            self._gives_probabilities = matrix and are_probabilities(answers)

    def eval(self) -> Target:
        """Nothing: :meth:`attacked` has done it."""
        return self

    def train(self, mode: bool = True) -> Target:
        """Nothing: an attack never trains."""
        del mode
        return self

    def parameters(self) -> Iterator[Tensor]:
        """One tensor on the device of the attack."""
        return iter([torch.zeros((), device=self.device)])

    def set_memory_format(self, x: Tensor) -> None:
        """Channels last from here to the end of :meth:`attacked`, where that suits: on a CPU convolutions run faster.

        Not on other devices, for scripted modules, or for networks that call `view` on what a convolution gives.
        """
        network = self.network
        if network is None or self.device.type != "cpu" or isinstance(network, torch.jit.ScriptModule):
            return
        kernels = [p for p in network.parameters() if p.ndim == 4]
        if not kernels or not all(p.is_contiguous() for p in kernels):
            return
        if probe_memory_format(network, x, self) == torch.channels_last:
            self._is_channels_last = True
            set_memory_format(network, torch.channels_last)

    def _restore_memory_format(self) -> None:
        if self._is_channels_last and self.network is not None:
            set_memory_format(self.network, torch.contiguous_format)
        self._is_channels_last = False

    @contextlib.contextmanager
    def attacked(self) -> Iterator[None]:
        """Evaluation mode and frozen parameters inside; every mode, flag and memory format as before afterwards.

        Frozen, because torchattacks' FAB calls `backward()` and would leave gradients in the parameters.
        """
        if self.network is None:
            yield
            return
        flags = [(parameter, parameter.requires_grad) for parameter in self.network.parameters()]
        with keeping_modes(self.network):
            try:
                # not eval(), which exported modules refuse
                for module in self.network.modules():
                    module.training = False
                for parameter, _ in flags:
                    parameter.requires_grad_(False)
                yield
            finally:
                self._restore_memory_format()
                for parameter, flag in flags:
                    parameter.requires_grad_(flag)
