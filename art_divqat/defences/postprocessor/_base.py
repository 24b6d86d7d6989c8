"""Base of the postprocessors: check rows of probabilities, perturb them, keep the contract of every defence."""

from __future__ import annotations

import abc
import copy
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from art.defences.postprocessor.postprocessor import Postprocessor

from art_divqat._rng import numpy_generator
from art_divqat._validation import check_bool, check_choice, check_int
from art_divqat.defences.postprocessor._rows import (
    BLOCK_NUMBERS,
    Rows,
    check_finite,
    check_simplex,
    checked_array,
    row_blocks,
    softmax_rows,
    two_columns,
)
from art_divqat.errors import unknown_name
from art_divqat.parameters import Parameters

InputType: TypeAlias = Literal["auto", "probabilities", "logits"]
INPUT_TYPES = ("auto", "probabilities", "logits")
_REMEDIES = {
    "auto": "if these are logits, say input_type='logits' or put Softmax() first in the chain.",
    "probabilities": "input_type is 'probabilities'; for logits say input_type='logits'.",
}


class ProbabilityPostprocessor(Postprocessor, abc.ABC):
    """An ART postprocessor that takes answers (N, C) or (N, 1) and returns rows on the probability simplex.

    The input is never changed, float32 stays float32 and float64 stays float64, an empty batch gives an empty batch,
    and logits are never taken for probabilities. A subclass writes :meth:`_perturb` and declares its own parameters in
    `parameters`; a binary column p reaches it as the two columns (1 − p, p).

    :param input_type: `auto` and `probabilities` accept rows on the simplex (sums within 1e-3 of one) and refuse
        anything else; `logits` takes a softmax first (a sigmoid for one column).
    :param apply_fit: ART's flag: applied while fitting.
    :param apply_predict: ART's flag: applied while predicting.
    """

    params: ClassVar[list[str]] = ["input_type"]
    parameters: ClassVar[Parameters] = {}

    def __init__(self, *, input_type: InputType = "auto", apply_fit: bool = False, apply_predict: bool = True) -> None:
        super().__init__(
            is_fitted=True,
            apply_fit=check_bool(self, "apply_fit", apply_fit),
            apply_predict=check_bool(self, "apply_predict", apply_predict),
        )
        self.input_type = input_type

    def __call__(self, preds: Any) -> Rows:
        """Return the answers to serve, of the shape and precision of `preds`.

        :param preds: answers of shape (N, C), or (N, 1) with the probability of class 1.
        :raises UserError: for a wrong rank or type, non-finite entries, or rows that are not probabilities.
        """
        return self._serve(self._checked(preds))

    def _serve(self, rows: Rows) -> Rows:
        """Checked answers, served in blocks that stay in the cache: the memory of a block is all that a step takes."""
        if rows.shape[0] == 0:
            return rows.copy()
        perturb = self._perturb_column if rows.shape[1] == 1 else self._perturb
        if rows.size <= BLOCK_NUMBERS:
            return perturb(self._as_probabilities(rows))
        out = np.empty_like(rows)
        for block in row_blocks(*rows.shape):
            out[block] = perturb(self._as_probabilities(rows[block]))
        return out

    def probabilities(self, preds: Any) -> Rows:
        """The checked answers as probabilities: `preds` itself, or its softmax where the input is logits."""
        return self._as_probabilities(self._checked(preds))

    def _checked(self, preds: Any) -> Rows:
        owner = type(self).__name__
        rows = checked_array(owner, preds)
        if self.input_type == "logits":
            check_finite(owner, rows)
        else:
            check_simplex(owner, rows, _REMEDIES[self.input_type])
        return rows

    def _as_probabilities(self, rows: Rows) -> Rows:
        return softmax_rows(rows) if self.input_type == "logits" else rows

    @abc.abstractmethod
    def _perturb(self, rows: Rows) -> Rows:
        """New rows for a block of checked probabilities (N ≥ 1, C ≥ 2, C-ordered); must not write to `rows`."""

    def _perturb_column(self, column: Rows) -> Rows:
        """The same for a binary column; a subclass overrides it where unchanged answers must stay bit for bit."""
        return np.ascontiguousarray(self._perturb(two_columns(column))[:, 1:])

    def set_params(self, **kwargs: Any) -> None:
        """Change parameters; either all of them are valid and set, or none is.

        :raises UserError: for a name that is no parameter of this class, or a value out of range.
        """
        for name in kwargs:
            if name not in self.params:
                raise unknown_name(f"parameter of {type(self).__name__}", name, self.params)
        candidate = copy.copy(self)
        candidate.__dict__.update(kwargs)
        candidate._check_params()
        self.__dict__.update(candidate.__dict__)

    def get_params(self) -> dict[str, Any]:
        """The parameters by name, as the constructor takes them."""
        return {name: getattr(self, name) for name in self.params}

    def _check_params(self) -> None:
        check_choice(self, "input_type", self.input_type, INPUT_TYPES)
        self._check_own()

    def _check_own(self) -> None:
        """Check the parameters of the subclass and store them as plain numbers: as `parameters` declares them."""
        for name, parameter in self.parameters.items():
            setattr(self, name, parameter.check(self, name, getattr(self, name)))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.params)
        return f"{type(self).__name__}({arguments})"


class SeededPostprocessor(ProbabilityPostprocessor, abc.ABC):
    """A postprocessor that draws, from its own generator: two calls on one object give different answers.

    :param seed: an int of at least 0; the same seed gives the same answers to the same calls.
    """

    def __init__(
        self, *, seed: int, input_type: InputType = "auto", apply_fit: bool = False, apply_predict: bool = True
    ) -> None:
        super().__init__(input_type=input_type, apply_fit=apply_fit, apply_predict=apply_predict)
        self.seed = seed
        self._seeded_with: int | None = None

    def _check_params(self) -> None:
        self.seed = check_int(self, "seed", self.seed, 0)
        super()._check_params()
        # Only a new seed starts the stream again: changing another parameter must not repeat the draws.
        if self.seed != self._seeded_with:
            self._generator: np.random.Generator = numpy_generator(self.seed, type(self).__name__)
            self._seeded_with = self.seed
