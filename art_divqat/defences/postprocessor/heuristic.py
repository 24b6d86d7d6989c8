"""The heuristic perturbation: reverse-sigmoid noise behind a gate on the top probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from art_divqat.defences.parameters import HEURISTIC, HEURISTIC_BUDGETS
from art_divqat.defences.postprocessor._base import InputType, ProbabilityPostprocessor
from art_divqat.defences.postprocessor._heuristic_kernel import GATE_CLOSED, ODDS_CLIP, perturb_row, perturb_rows
from art_divqat.defences.postprocessor._rows import Rows, lift, two_columns
from art_divqat.errors import UserError
from art_divqat.parameters import Parameters

if TYPE_CHECKING:
    import torch

# The range in which `fit_to_budget` looks for β: from 2 on the formula leaves the simplex and is cut off at zero.
_FIT_RANGE = 2.0
_FIT_STEPS = 80
_FIT_BISECTIONS = 40


@dataclass(frozen=True)
class BudgetFit:
    """What :meth:`HeuristicPerturbation.fit_to_budget` reached, measured on the answers it was given.

    :param beta: the β found, now the defence's own.
    :param l1: mean over the rows of Σ_k |ỹ_k − y_k|, in [0, 2].
    :param label_flip_rate: share of rows whose top class changed, in [0, 1].
    :param n_answers: how many rows it was measured on.
    """

    beta: float
    l1: float
    label_flip_rate: float
    n_answers: int


class HeuristicPerturbation(ProbabilityPostprocessor):
    """ỹ_k = (y_k − α r_k) / Σ_j (y_j − α r_j), α = σ(ν(β − m)), r_k = β(σ(γ·logit y_k) − ½), m = max_k y_k.

    The gate α is 1 when the answer is uncertain (m below β) and 0 when it is confident; an answer behind a closed gate
    is returned bit for bit. With many classes, do not set β by hand: use :meth:`fit_to_budget`. `preserve_label=True`
    keeps the top class, and so does not affect a thief that trains on labels alone.
    `docs/defend-a-classifier.md` says what is as published, how the variants differ and how the label is kept.

    Khaled, Dhaouadi, Gohring de Magalhães and Nicolescu, ICMLA 2023, https://arxiv.org/abs/2309.01838

    :param beta: threshold of the gate and magnitude of the noise, in [0, 1000]; 0 changes nothing.
    :param gamma: sharpness of the noise, in (0, 1000].
    :param variant: `exact` or `released`.
    :param preserve_label: never change the top class.
    :param input_type: see :class:`ProbabilityPostprocessor`.
    :param nu: steepness of the gate, in (0, 1e6].
    :raises UserError: for a parameter out of range.

    >>> import numpy as np
    >>> answers = np.array([[0.5, 0.3, 0.2], [0.98, 0.01, 0.01]], dtype=np.float32)
    >>> HeuristicPerturbation(beta=0.9, gamma=0.2)(answers).round(3)
    array([[0.455, 0.307, 0.238],
           [0.98 , 0.01 , 0.01 ]], dtype=float32)
    """

    params: ClassVar[list[str]] = ["beta", "gamma", "variant", "preserve_label", "input_type", "nu"]
    parameters: ClassVar[Parameters] = HEURISTIC

    def __init__(
        self,
        beta: float = 0.5,
        gamma: float = 0.2,
        variant: Literal["exact", "released"] = "exact",
        preserve_label: bool = False,
        input_type: InputType = "auto",
        nu: float = 1000.0,
        apply_fit: bool = False,
        apply_predict: bool = True,
    ) -> None:
        super().__init__(input_type=input_type, apply_fit=apply_fit, apply_predict=apply_predict)
        self.beta = beta
        self.gamma = gamma
        self.variant = variant
        self.preserve_label = preserve_label
        self.nu = nu
        self._check_params()

    def __call__(self, preds: Any) -> Rows:
        """Return the answers to serve, of the shape and precision of `preds`.

        :param preds: answers of shape (N, C), or (N, 1) with the probability of class 1.
        :raises UserError: for a wrong rank or type, non-finite entries, or rows that are not probabilities.
        """
        if type(preds) is np.ndarray and preds.ndim == 2 and preds.shape[0] == 1 and self.input_type != "logits":
            served = perturb_row(self, preds)
            if served is not None:
                return served
        return super().__call__(preds)

    def _perturb(self, rows: Rows) -> Rows:
        return perturb_rows(self, rows)

    def formula(self, preds: Any) -> npt.NDArray[np.float64]:
        """The answers to serve by the formula as it stands in the class, one step a line, in float64.

        For reading and for tests: calling the object gives the same answers up to rounding, at a fraction of the cost.

        :param preds: answers of shape (N, C), or (N, 1) with the probability of class 1.
        :returns: rows of the shape of `preds`.
        :raises UserError: as calling the object does.

        >>> import numpy as np
        >>> HeuristicPerturbation(beta=0.9, gamma=0.2).formula(np.array([[0.5, 0.3, 0.2]])).round(3)
        array([[0.455, 0.307, 0.238]])
        """
        answers = self.probabilities(preds)
        binary = answers.shape[1] == 1
        answers = two_columns(answers) if binary else answers
        beta = float(answers.dtype.type(self.beta))  # ν magnifies the rounding of β: it is taken as the answers hold it
        unchanged = answers.astype(np.float64)
        y = np.minimum(unchanged, 1)  # rows may sum to 1.001
        with np.errstate(all="ignore"):  # the limits at 0 and 1; exp(∞) closes the gate
            steps = self.nu * (unchanged.max(axis=1, keepdims=True, initial=0) - beta)
            alpha = 1 / (1 + np.exp(steps))
            odds = y / (1 - y)
            if self.variant == "released":
                odds = np.clip(odds, ODDS_CLIP, 1 - ODDS_CLIP)
            r = beta * np.tanh(self.gamma * np.log(odds) / 2) / 2  # σ(z) − ½ = tanh(z/2)/2
        t = np.maximum(y - alpha * r, 0)
        if self.preserve_label:
            top = (np.arange(len(t)), unchanged.argmax(axis=1))
            rivals = t.copy()
            rivals[top] = 0
            t[top] = np.maximum(t[top], rivals.max(axis=1, initial=0) * lift(answers))
        is_closed = (steps > GATE_CLOSED) | (self.beta == 0)
        served = np.where(is_closed, unchanged, t / t.sum(axis=1, keepdims=True))
        return served[:, 1:] if binary else served

    def fit_to_budget(
        self, probabilities: Any, *, l1: float | None = None, max_label_flips: float | None = None
    ) -> BudgetFit:
        """Set β from held-out answers so that the mean L1 change is `l1`, or so that few enough labels flip.

        The mean L1 is continuous in β, but not monotone, and it can be steep (near β = 1 it can rise from zero to its
        maximum within 0.01). Therefore [0, 2] is scanned in steps of 1/40 and the first crossing is bisected. `l1`
        finds the smallest β that spends the budget; `max_label_flips` the largest β up to which the rate stays within
        the bound, or 2 if it always does.

        :param probabilities: answers of shape (N, C) or (N, 1) that were not used to train the victim, in the form
            that `input_type` says.
        :param l1: mean of Σ_k |ỹ_k − y_k| to spend, in (0, 2].
        :param max_label_flips: highest share of changed top classes, in [0, 1].
        :returns: what was reached on these answers.
        :raises UserError: for no budget or two, for no answers, and for an L1 that no β in [0, 2] reaches.
        """
        self.check_budget(l1=l1, max_label_flips=max_label_flips)
        rows = self.probabilities(probabilities)
        if rows.shape[0] == 0:
            raise UserError("fit_to_budget expects at least one answer but got an empty batch.")
        if rows.shape[1] == 1:
            rows = two_columns(rows)
        probe = HeuristicPerturbation(0.0, self.gamma, self.variant, self.preserve_label, "probabilities", self.nu)
        labels = rows.argmax(axis=1)

        def measure(beta: float) -> BudgetFit:
            probe.beta = beta
            served = probe._serve(rows)
            flips = float(np.mean(served.argmax(axis=1) != labels))
            # sums in float64: the mean of 1e5 float32 rows must not drift
            distortion = float(np.abs(served - rows).sum(axis=1, dtype=np.float64).mean())
            return BudgetFit(beta, distortion, flips, rows.shape[0])

        fit = (
            _first_to_spend(float(l1), measure)
            if l1 is not None
            else _last_within(float(max_label_flips or 0), measure)
        )
        self.set_params(beta=fit.beta)
        return fit

    def check_budget(self, *, l1: float | None = None, max_label_flips: float | None = None) -> None:
        """Refuse a budget that :meth:`fit_to_budget` could not meet on any answers.

        :raises UserError: for no budget or two, and for one out of range.
        """
        if (l1 is None) == (max_label_flips is None):
            raise UserError(
                f"fit_to_budget expects exactly one of l1 and max_label_flips but got l1={l1!r} and "
                f"max_label_flips={max_label_flips!r}."
            )
        name, value = ("l1", l1) if max_label_flips is None else ("max_label_flips", max_label_flips)
        HEURISTIC_BUDGETS[name].check(self, name, value)

    def as_module(self) -> torch.nn.Module:
        """The same function as a `torch.nn.Module` on tensors (N, C) or (N, 1).

        It agrees with this object to float32 rounding, has no state besides its parameters at the time of the call,
        follows its input to any device, and can be scripted and exported to ONNX inside a model. It does not check its
        input, because an exported graph cannot.
        """
        from art_divqat.defences.postprocessor._heuristic_module import HeuristicModule

        return HeuristicModule(
            beta=self.beta,
            gamma=self.gamma,
            nu=self.nu,
            released=self.variant == "released",
            preserve_label=self.preserve_label,
            from_logits=self.input_type == "logits",
        )


def _first_to_spend(l1: float, measure: Any) -> BudgetFit:
    low, best = 0.0, measure(0.0)
    for step in range(1, _FIT_STEPS + 1):
        high = step * _FIT_RANGE / _FIT_STEPS
        fit: BudgetFit = measure(high)
        best = max(best, fit, key=lambda f: f.l1)
        if fit.l1 >= l1:
            for _ in range(_FIT_BISECTIONS):
                middle = measure((low + high) / 2)
                low, high, fit = (low, middle.beta, middle) if middle.l1 >= l1 else (middle.beta, high, fit)
            return fit
        low = high
    raise UserError(
        f"An L1 budget of {l1:g} cannot be met: on these {best.n_answers} answers the most that a beta in "
        f"[0, {_FIT_RANGE:g}] reaches is {best.l1:.4g}, at beta={best.beta:g}; ask for less or lower gamma."
    )


def _last_within(bound: float, measure: Any) -> BudgetFit:
    fit: BudgetFit = measure(0.0)
    for step in range(1, _FIT_STEPS + 1):
        high = step * _FIT_RANGE / _FIT_STEPS
        at_high: BudgetFit = measure(high)
        if at_high.label_flip_rate > bound:
            for _ in range(_FIT_BISECTIONS):
                middle = measure((fit.beta + high) / 2)
                if middle.label_flip_rate > bound:
                    high = middle.beta
                else:
                    fit = middle
            return fit
        fit = at_high
    return fit
