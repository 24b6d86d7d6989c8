"""Adaptive policy of KnockoffNets: rewards, and the gradient bandit that uses them to choose a pool class."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class Rewards:
    """cert = y₍₁₎ − y₍₂₎;  div = Σₖ max(0, yₖ − ȳₖ);  loss = −Σₖ yₖ log softmax(ŷ)ₖ;  all = the mean of the three, each
    standardised by its running mean and variance (Orekondy et al., CVPR 2019, section 4.1).

    ȳ is the running mean of the answers. A reward that has not varied yet standardises to 0, where ART divides by 0.

    :param kind: `cert`, `div`, `loss` or `all`.

    >>> rewards = Rewards("cert", 3)
    >>> round(rewards(np.array([0.7, 0.2, 0.1]), None), 3)
    0.5
    """

    def __init__(self, kind: str, nb_classes: int) -> None:
        self.kind = kind
        self.seen = 0
        self.mean_answer = np.zeros(nb_classes)
        # plain floats: on three numbers numpy's calls would cost five times the sums
        self.mean = [0.0, 0.0, 0.0]
        self.variance = [0.0, 0.0, 0.0]

    @property
    def needs_thief(self) -> bool:
        """Whether the reward looks at the thief's logits."""
        return self.kind in ("loss", "all")

    def __call__(self, answer: NDArray[np.float64], thief_logits: NDArray[np.float64] | None) -> float:
        """The reward of one answer, a row of probabilities.

        :param thief_logits: the thief's logits of the same image after it learned it; for `loss` and `all` only.
        """
        self.seen += 1
        if self.kind == "cert":
            return _certainty(answer)
        if self.kind == "loss":
            return _loss(answer, thief_logits)
        self.mean_answer += (answer - self.mean_answer) / self.seen
        diversity = float(np.maximum(0, answer - self.mean_answer).sum())
        if self.kind == "div":
            return diversity
        return self._standardised((_certainty(answer), diversity, _loss(answer, thief_logits)))

    def _standardised(self, rewards: tuple[float, float, float]) -> float:
        total = 0.0
        for i, reward in enumerate(rewards):
            self.mean[i] += (reward - self.mean[i]) / self.seen
            self.variance[i] += ((reward - self.mean[i]) ** 2 - self.variance[i]) / self.seen
            if self.seen == 1:
                total += min(max(reward, 0.0), 1.0)
            # 1e-18: rewards equal but for rounding carry no information, and the division would blow them up to ±1
            elif self.variance[i] > 1e-18:
                total += (reward - self.mean[i]) / math.sqrt(self.variance[i])
        return total / 3


def _certainty(answer: NDArray[np.float64]) -> float:
    second, first = np.partition(answer, -2)[-2:]
    return float(first - second)


def _loss(answer: NDArray[np.float64], thief_logits: NDArray[np.float64] | None) -> float:
    if thief_logits is None:
        raise TypeError("the `loss` reward needs the thief's logits")
    shifted = thief_logits - thief_logits.max()
    return float(np.log(np.exp(shifted).sum()) * answer.sum() - answer @ shifted)


class GradientBandit:
    """H_a ← H_a + (r − r̄)(1[a = chosen] − π_a) / n_chosen, with π = softmax(H), over the classes of a pool.

    The softmax subtracts the maximum, so that no preference overflows. Actions whose images are used up are masked.

    :param nb_actions: number of classes of the pool.
    """

    def __init__(self, nb_actions: int) -> None:
        self.preferences = np.zeros(nb_actions)
        self.times_chosen = np.zeros(nb_actions)
        self.exhausted = np.zeros(nb_actions, bool)
        self.mean_reward = 0.0
        self.updates = 0

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """The policy π, of shape (actions,)."""
        masked = self.exhausted & ~self.exhausted.all()
        preferences = np.where(masked, -np.inf, self.preferences)
        exponentials = np.exp(preferences - preferences.max())
        return exponentials / exponentials.sum()

    def update(self, action: int, reward: float) -> None:
        """Move the policy by the reward of one action."""
        probabilities = self.probabilities
        self.updates += 1
        self.mean_reward += (reward - self.mean_reward) / self.updates
        self.times_chosen[action] += 1
        direction = -probabilities
        direction[action] += 1
        self.preferences += (reward - self.mean_reward) / self.times_chosen[action] * direction


class PoolByClass:
    """The row numbers of a pool by its own labels, to draw from with or without replacement.

    :param labels: class ids, contiguous or not, or one-hot rows; (N,) or (N, classes).
    """

    def __init__(self, labels: NDArray[np.int64], replacement: bool) -> None:
        ids = labels.argmax(axis=1) if labels.ndim == 2 else labels
        _, actions = np.unique(ids, return_inverse=True)
        order = np.argsort(actions, kind="stable")
        self.rows = np.split(order, np.cumsum(np.bincount(actions))[:-1])
        self.left = [len(rows) for rows in self.rows]
        self.replacement = replacement

    def draw(self, action: int, random: np.random.RandomState) -> int:
        """A row of the class, uniformly; without replacement it is not drawn again."""
        rows, left = self.rows[action], self.left[action]
        position = int(random.choice(left))
        row = int(rows[position])
        if not self.replacement:
            rows[position], rows[left - 1] = rows[left - 1], row
            self.left[action] -= 1
        return row
