"""Learned recoveries: estimate the inverse of a known defence on pairs (y, defence(y)) that the thief makes itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from art_divqat._rng import derive_seed, isolated_random_state, numpy_generator
from art_divqat._validation import check_int
from art_divqat.attacks.recovery.answers import Recovery
from art_divqat.attacks.recovery.parameters import BAYES, DAE
from art_divqat.errors import UserError

if TYPE_CHECKING:
    from art_divqat.attacks.recovery.contract import Defence


def sample_answers(count: int, nb_classes: int, seed: int) -> NDArray[np.float32]:
    """Answers that a classifier might give: Dirichlet rows, the concentration log-uniform in [0.01, 1] row by row.

    :return: float32 rows on the simplex, of shape (count, nb_classes), no entry below 1e-7.

    >>> rows = sample_answers(5, 10, seed=0)
    >>> rows.shape, bool(np.allclose(rows.sum(axis=1), 1))
    ((5, 10), True)
    """
    random = numpy_generator("answers", seed)
    concentration = np.exp(random.uniform(np.log(0.01), 0, (count, 1)))
    # gamma variates of a small shape underflow: their logarithms do not (Gamma(a) = Gamma(a + 1) · U^(1/a))
    logs = np.log(random.standard_gamma(concentration + 1, (count, nb_classes)))
    logs += np.log(random.uniform(1e-300, 1, (count, nb_classes))) / concentration
    rows = np.maximum(softmax(logs, axis=1), 1e-7)
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)


def _defended(defence: Defence, clean: NDArray[np.float32]) -> NDArray[np.float32]:
    served = np.asarray(defence(clean.copy()), dtype=np.float32)
    if served.shape != clean.shape or not np.isfinite(served).all():
        raise UserError("The defence that the thief rebuilt must map (N, classes) rows to finite rows of that shape.")
    return served


class LearnedRestorer(Recovery):
    """R(ỹ) ≈ y: a small network C → h₁ → h₂ → C, trained on pairs (y, defence(y)) by the cross-entropy of R(ỹ) with y.

    Batch norm, leaky ReLU of slope 0.2, softmax; 128 and 64 hidden units up to 10 classes, 1024 and 512 above: D-DAE of
    Chen et al., "D-DAE: Defense-Penetrating Model Extraction Attacks" (S&P 2023), as ModelGuard's evaluation uses it.

    :param defence: maps clean rows to served rows; what the thief knows of the defence.
    :param nb_classes: C.
    :param clean: rows to make pairs from, such as the answers of shadow models; Dirichlet rows if not given.
    :param pairs: how many Dirichlet rows.
    :param epochs: of training, in batches of 256 with Adam at 1e-3.
    :param seed: decides the rows, the initial weights and the order.
    """

    def __init__(
        self,
        defence: Defence,
        nb_classes: int,
        *,
        clean: NDArray[np.float32] | None = None,
        pairs: int = DAE["pairs"].default,
        epochs: int = 20,
        seed: int = 0,
    ) -> None:
        DAE["pairs"].check(self, "pairs", pairs)
        check_int(self, "epochs", epochs, 1)
        rows = sample_answers(pairs, nb_classes, seed) if clean is None else np.asarray(clean, np.float32)
        wide, narrow = (128, 64) if nb_classes <= 10 else (1024, 512)
        with isolated_random_state("restorer", seed):
            served = _defended(defence, rows)
            self.network = nn.Sequential(
                nn.Linear(nb_classes, wide),
                nn.BatchNorm1d(wide),
                nn.LeakyReLU(0.2),
                nn.Linear(wide, narrow),
                nn.BatchNorm1d(narrow),
                nn.LeakyReLU(0.2),
                nn.Linear(narrow, nb_classes),
            )
            self.loss = self._train(torch.from_numpy(served), torch.from_numpy(rows), epochs, seed)

    def _train(self, served: Tensor, clean: Tensor, epochs: int, seed: int) -> float:
        optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        generator = torch.Generator().manual_seed(derive_seed("restorer order", seed))
        loss = torch.zeros(())
        for _ in range(epochs):
            order = torch.randperm(len(clean), generator=generator)
            for batch in order.split(256)[: max(1, len(order) // 256)]:
                optimizer.zero_grad(set_to_none=True)
                loss = nn.functional.cross_entropy(self.network(served[batch]), clean[batch])
                loss.backward()
                optimizer.step()
        self.network.eval()
        return float(loss.detach())

    def restore(self, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            logits = self.network(torch.from_numpy(np.ascontiguousarray(answers, np.float32)))
            return torch.softmax(logits, dim=1).numpy()


class PartialBayes(Recovery):
    """E[y | ‖defence(y) − ỹ‖₁ ≤ τ]: the mean of the sampled y whose defended version lies near the answer seen.

    Where none does, the nearest one. The adaptive attack of ModelGuard (Tang et al., USENIX Security 2024).

    :param defence: maps clean rows to served rows; what the thief knows of the defence.
    :param nb_classes: C.
    :param clean: rows to sample from; Dirichlet rows if not given.
    :param samples: how many Dirichlet rows; each answer is compared with all of them.
    :param tolerance: τ, in [0, 2].
    :param seed: decides the rows.

    >>> keep_half = lambda y: 0.5 * y + 0.5 / y.shape[1]
    >>> bayes = PartialBayes(keep_half, 3, samples=5000)
    >>> bayes.restore(np.array([[0.60, 0.22, 0.18]], np.float32)).argmax(axis=1)
    array([0])
    """

    def __init__(
        self,
        defence: Defence,
        nb_classes: int,
        *,
        clean: NDArray[np.float32] | None = None,
        samples: int = BAYES["samples"].default,
        tolerance: float = BAYES["tolerance"].default,
        seed: int = 0,
    ) -> None:
        BAYES["samples"].check(self, "samples", samples)
        self.tolerance = BAYES["tolerance"].check(self, "tolerance", tolerance)
        self.clean = sample_answers(samples, nb_classes, seed) if clean is None else np.asarray(clean, np.float32)
        with isolated_random_state("bayes", seed):
            self.served = _defended(defence, self.clean)

    def restore(self, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = np.empty_like(answers)
        served = torch.from_numpy(self.served)
        clean = torch.from_numpy(self.clean)
        for start in range(0, len(answers), 256):  # 256 × 20,000 distances at a time, 20 MB
            part = torch.from_numpy(np.ascontiguousarray(answers[start : start + 256], np.float32))
            distance = torch.cdist(part, served, p=1)
            near = (distance <= self.tolerance).float()
            means = near @ clean / near.sum(dim=1, keepdim=True).clamp(min=1)
            nearest = clean[distance.argmin(dim=1)]
            rows[start : start + 256] = torch.where(near.any(dim=1, keepdim=True), means, nearest).numpy()
        return rows
