"""Base of the gradient defences: perturb each answer by its query, and wrap a classifier to serve the result."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from art_divqat._validation import check_int
from art_divqat.defences._clone import clone_classifier
from art_divqat.defences.postprocessor._rows import Rows, check_simplex, checked_array, two_columns
from art_divqat.errors import UserError
from art_divqat.parameters import Parameters

Stage = Callable[[npt.NDArray[Any], Rows], Rows]
_REMEDY = "the classifier must answer with probabilities: put Softmax() first among its postprocessing_defences."


class InputDefence(abc.ABC):
    """A defence that needs the query and a network of its own, and so cannot be an ART postprocessor.

    :meth:`perturb` is the perturbation alone; :meth:`defend` puts it behind an ART classifier.

    :param network: logit-valued `torch.nn.Module` on inputs like the classifier's; put into eval mode, never trained.
    :param batch_size: inputs a forward pass.
    """

    params: ClassVar[list[str]] = ["batch_size"]
    parameters: ClassVar[Parameters] = {}

    def __init__(self, network: nn.Module, *, batch_size: int = 256) -> None:
        if not isinstance(network, nn.Module):
            raise UserError(f"{type(self).__name__} expects a torch.nn.Module but got {type(network).__name__}.")
        self.network = network.eval()
        self.batch_size = check_int(self, "batch_size", batch_size, 1)

    def _own(self, name: str, value: Any) -> Any:
        """A parameter as `parameters` declares it."""
        return self.parameters[name].check(self, name, value)

    def perturb(self, x: npt.NDArray[Any], probabilities: Any) -> Rows:
        """The answers to serve for these queries, of the shape and precision of `probabilities`.

        :param x: the queries, N of them, as the classifier takes them.
        :param probabilities: its clean answers, (N, C), or (N, 1) with the probability of class 1.
        :raises UserError: for answers that are no probabilities, or that do not match the queries or the network.
        """
        owner = type(self).__name__
        rows = checked_array(owner, probabilities)
        check_simplex(owner, rows, _REMEDY)
        if len(x) != rows.shape[0]:
            raise UserError(f"{owner} expects one answer for each query but got {len(x)} and {rows.shape[0]}.")
        if rows.shape[0] == 0:
            return rows.copy()
        answers = two_columns(rows) if rows.shape[1] == 1 else rows
        parts = [
            self._perturb(torch.as_tensor(np.ascontiguousarray(x[i : i + self.batch_size], np.float32)), answers[at])
            for i in range(0, len(x), self.batch_size)
            for at in [slice(i, i + self.batch_size)]
        ]
        served: Rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return np.ascontiguousarray(served[:, 1:]) if rows.shape[1] == 1 else served

    @abc.abstractmethod
    def _perturb(self, x: torch.Tensor, rows: Rows) -> Rows:
        """New rows for one batch of queries and checked answers with C ≥ 2."""

    def network_probabilities(self, x: torch.Tensor, like: Rows) -> Rows:
        """softmax of the network's logits, of the shape and precision of `like`."""
        with torch.inference_mode():
            answers = torch.softmax(self.network(x.to(self._device())), dim=1).cpu().numpy().astype(like.dtype)
        self._check_width(answers.shape[1], like.shape[1])
        return answers

    def _check_width(self, given: int, expected: int) -> None:
        if given != expected:
            raise UserError(
                f"{type(self).__name__} has a network with {given} classes but the answers have {expected}."
            )

    def _device(self) -> torch.device:
        first = next(self.network.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def defend(self, classifier: Any) -> Any:
        """An ART classifier like `classifier`, with its network, that serves through this defence.

        Its class is a subclass of the classifier's, so ART accepts it wherever it accepts the classifier. As with ART's
        postprocessors, gradients and training are those of the classifier, without the defence.

        :raises UserError: where `classifier` is no ART classifier.
        """
        return with_stages(classifier, [self.perturb])

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.params)
        return f"{type(self).__name__}({arguments})"


def with_stages(classifier: Any, stages: list[Stage]) -> Any:
    """A copy of an ART classifier whose `predict` passes (queries, answers) through the stages in order."""
    from art.estimators.classification import ClassifierMixin

    if not isinstance(classifier, ClassifierMixin):
        raise UserError(f"Only an ART classifier can be defended but this is a {type(classifier).__name__}.")
    if isinstance(classifier, _Defended):
        return clone_classifier(classifier, _defence_stages=(*classifier._defence_stages, *stages))
    base: Any = type(classifier)
    return clone_classifier(classifier, _defended_class(base), _defence_stages=tuple(stages))


class _Defended:
    """Mixed in before an ART classifier's class."""

    _defence_stages: tuple[Stage, ...] = ()

    def __reduce_ex__(self, protocol: Any) -> Any:
        plain = clone_classifier(self, type(self).__mro__[2])
        del plain._defence_stages
        return with_stages, (plain, list(self._defence_stages))

    def __copy__(self) -> Any:
        return clone_classifier(self)


@functools.cache
def _defended_class(base: type) -> type:
    def predict(self: Any, x: npt.NDArray[Any], *args: Any, **kwargs: Any) -> Any:
        answers = base.predict(self, x, *args, **kwargs)  # type: ignore[attr-defined]
        for stage in self._defence_stages:
            answers = stage(x, answers)
        return answers

    return type(base)(f"Defended{base.__name__}", (_Defended, base), {"predict": predict, "__module__": __name__})
