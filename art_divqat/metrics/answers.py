"""Metrics of answers: how good a thief is, and what a defence does to the answers. Rates are fractions in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat.errors import UserError


@dataclass(frozen=True)
class AllAnswers:
    """Everybody's answers to the test images of one cell, from which the metrics of answers are computed.

    :param labels: the true class ids, (N,); None where nobody knows which class of the victim's is the true one.
    :param clean: the undefended victim's probabilities, (N, classes).
    :param served: what the victim serves through its defence, (N, classes).
    :param thief: the thief's logits, (N, classes).
    """

    labels: NDArray[Any] | None
    clean: NDArray[Any]
    served: NDArray[Any]
    thief: NDArray[Any]

    @property
    def known_labels(self) -> NDArray[Any]:
        """The true class ids, for what has a value only where they are known."""
        assert self.labels is not None, "a metric that needs labels says so in the table"
        return self.labels


def accuracy(answers: NDArray[Any], labels: NDArray[Any]) -> float:
    """mean(argmax_k answers = label).

    :param answers: logits or probabilities (N, classes); the first of several highest wins.
    :param labels: class ids (N,).
    :raises UserError: for no rows, or another count of labels.

    >>> accuracy(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0]))
    0.5
    """
    _check_rows(answers, labels)
    return float(np.mean(answers.argmax(axis=1) == labels))


def agreement(thief: NDArray[Any], victim: NDArray[Any]) -> float:
    """mean(argmax thief = argmax victim), also called fidelity.

    :param thief: logits or probabilities (N, classes).
    :param victim: logits or probabilities (N, classes): the served ones for `agreement`, the clean ones for
        `agreement_clean`.

    >>> agreement(np.eye(2), np.array([[0.6, 0.4], [0.7, 0.3]]))
    0.5
    """
    _check_rows(thief, victim)
    return accuracy(thief, victim.argmax(axis=1))


def extraction_ratio(thief_accuracy: float, victim_accuracy: float) -> float | None:
    """thief accuracy / victim accuracy, or None for a victim that is never right.

    >>> extraction_ratio(0.4, 0.8)
    0.5
    """
    return thief_accuracy / victim_accuracy if victim_accuracy > 0 else None


def label_flip_rate(served: NDArray[Any], clean: NDArray[Any]) -> float:
    """mean(argmax served ≠ argmax clean): how often a defence changes the answer itself.

    >>> label_flip_rate(np.array([[0.4, 0.6]]), np.array([[0.9, 0.1]]))
    1.0
    """
    return 1.0 - agreement(served, clean)


def l1_distortion(served: NDArray[Any], clean: NDArray[Any]) -> float:
    """mean_n Σ_k |served_nk − clean_nk|, in [0, 2] for probabilities.

    >>> l1_distortion(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]]))
    1.0
    """
    _check_rows(served, clean)
    return float(np.abs(served.astype(np.float64) - clean).sum(axis=1).mean())


def kl_divergence(clean: NDArray[Any], served: NDArray[Any], floor: float = 1e-12) -> float:
    """mean_n Σ_k clean_nk · log(clean_nk / served_nk), in nats; 0 · log 0 = 0.

    A class that is served as exactly 0 while it is likely would make the mean infinite; `floor` bounds it from below,
    so that one row adds at most log(1 / floor).

    >>> round(kl_divergence(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])), 4)
    0.6931
    """
    from scipy.special import rel_entr

    _check_rows(clean, served)
    rows = rel_entr(clean.astype(np.float64), np.maximum(served.astype(np.float64), floor)).sum(axis=1)
    return float(max(rows.mean(), 0.0))


def transfer_attack_success(clean: NDArray[Any], adversarial: NDArray[Any], labels: NDArray[Any]) -> float | None:
    """The fraction of images that the victim got right and gets wrong once they were perturbed on the thief.

    None if the victim gets none right to begin with.

    :param clean: the victim's answers to the clean images, (N, classes).
    :param adversarial: its answers to the same images, perturbed, (N, classes).
    :param labels: class ids (N,).

    >>> transfer_attack_success(np.eye(2), np.eye(2)[::-1], np.array([0, 0]))
    1.0
    """
    _check_rows(clean, labels)
    _check_rows(adversarial, labels)
    right = clean.argmax(axis=1) == labels
    if not right.any():
        return None
    return float(np.mean(adversarial.argmax(axis=1)[right] != labels[right]))


def _check_rows(first: NDArray[Any], second: NDArray[Any]) -> None:
    if first.ndim != 2 or len(first) == 0 or len(first) != len(second):
        raise UserError(
            f"Expected answers (N, classes) and as many rows beside them, got {first.shape}, {second.shape}."
        )
    if second.ndim == 2 and first.shape != second.shape:
        raise UserError(f"Expected answers of one shape, got {first.shape} and {second.shape}.")
