"""KnockoffNets: query pool images at random or by an adaptive policy, and train a thief on the answers.

ART's attack, corrected: right rewards, no NaN, one seed, no copies, many times faster.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from art.attacks.extraction import KnockoffNets as ArtKnockoffNets
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray

from art_divqat._arrays import one_hot
from art_divqat._rng import isolated_random_state
from art_divqat.attacks.extraction._base import ProxyModel, QueryClient, SafeExtraction, check_thief, fit_thief
from art_divqat.attacks.extraction.parameters import (
    KNOCKOFF_ADAPTIVE,
    POOL_QUERIES,
    SEED,
    check_pool,
    unless_replaced,
    whole_budget,
)
from art_divqat.attacks.extraction.policy import GradientBandit, PoolByClass, Rewards
from art_divqat.errors import UserError
from art_divqat.parameters import Parameters


class KnockoffNets(SafeExtraction, ArtKnockoffNets):  # type: ignore[misc]
    """Query a pool, train a thief on the answers: the transfer set is drawn at random, or class by class by a bandit.

    An ART `KnockoffNets` with the same parameters; the victim must answer with probabilities, and every draw comes from
    `seed`. In adaptive mode a proxy network learns along, and the thief is trained once, from its own initial weights.
    After `extract`, `chosen` holds the rows of the pool that were asked and kept. `docs/attacks.md` lists what differs
    from ART's.

    | Paper link: https://arxiv.org/abs/1812.02766

    :param classifier: the victim, usually a :class:`~art_divqat.estimators.MeteredClassifier`.
    :param batch_size_fit: images a training step of the thief.
    :param batch_size_query: images a call to the victim.
    :param nb_epochs: epochs of the thief's training.
    :param nb_stolen: queries to spend.
    :param sampling_strategy: `random`, or `adaptive`, which needs the labels of the pool.
    :param reward: `cert`, `div`, `loss` or `all`; adaptive only.
    :param verbose: accepted as in ART; nothing is printed.
    :param use_probability: train on the answers, not on their top class alone.
    :param seed: decides every draw; an int in [0, 2³²).
    :param step: images asked between two updates of the policy; 1 is the published algorithm, more is faster.
    :param replacement: whether the adaptive policy may ask the same image again, as ART's does.
    :raises UserError: for a parameter out of range (ART's own are checked by ART, with a `ValueError`).
    """

    declared: ClassVar[Parameters] = {**SEED, **KNOCKOFF_ADAPTIVE}
    attack_params: ClassVar[list[str]] = list(dict.fromkeys([*ArtKnockoffNets.attack_params, *declared]))

    def __init__(
        self,
        classifier: Any,
        batch_size_fit: int = POOL_QUERIES["batch_size_fit"].default,
        batch_size_query: int = POOL_QUERIES["batch_size_query"].default,
        nb_epochs: int = POOL_QUERIES["nb_epochs"].default,
        nb_stolen: int = POOL_QUERIES["nb_stolen"].default,
        sampling_strategy: str = "random",
        reward: str = KNOCKOFF_ADAPTIVE["reward"].default,
        verbose: bool = False,
        use_probability: bool = True,
        *,
        seed: int = SEED["seed"].default,
        step: int = KNOCKOFF_ADAPTIVE["step"].default,
        replacement: bool = KNOCKOFF_ADAPTIVE["replacement"].default,
    ) -> None:
        self.seed = seed
        self.step = step
        self.replacement = replacement
        self.chosen: NDArray[np.int64] = np.zeros(0, np.int64)
        super().__init__(
            classifier,
            batch_size_fit,
            batch_size_query,
            nb_epochs,
            nb_stolen,
            sampling_strategy,
            reward,
            verbose,
            use_probability,
        )

    def extract(self, x: NDArray[Any], y: NDArray[Any] | None = None, **kwargs: Any) -> Any:
        """Spend `nb_stolen` queries on images of the pool and return the thief, trained in place.

        :param x: the pool, of shape (N, C, H, W), in memory or memory-mapped; unchanged.
        :param y: the pool's own labels, class ids (N,) or one-hot rows; needed by the adaptive strategy only.
        :param thieved_classifier: the fresh ART classifier to train.
        :raises UserError: for a pool smaller than `nb_stolen`, missing labels, or a thief of another class count.
        :raises QueryBudgetExceededError: when the victim's budget is spent first.
        """
        thief = check_thief(self.estimator, kwargs.get("thieved_classifier"))
        adaptive = self.sampling_strategy == "adaptive"
        pool_needed = unless_replaced if adaptive else whole_budget
        check_pool(len(x), pool_needed(self.nb_stolen, vars(self)))
        if adaptive and (y is None or len(y) != len(x)):
            raise UserError("The adaptive strategy needs the pool's own labels, one an image; use `random` without.")
        random = np.random.RandomState(self.seed)
        client = QueryClient(self.estimator, self.batch_size_query)
        with isolated_random_state("knockoff", self.seed):
            rows: NDArray[np.int64]
            if adaptive:
                rows, answers = self._explore(x, np.asarray(y), thief, client, random)
            else:
                # prefixes of one permutation (what numpy's choice draws too): the budgets of one seed are nested
                rows = np.asarray(random.permutation(len(x)), np.int64)[: self.nb_stolen]
                answers = client.ask_rows(x, rows)
                rows = rows[: len(answers)]
            labels = answers if self.use_probability else one_hot(answers)
            fit_thief(thief, x, labels, rows, batch_size=self.batch_size_fit, nb_epochs=self.nb_epochs)
        self.chosen = rows
        self._note(len(rows), client, distinct_images=float(len(np.unique(rows))))
        return thief

    def _explore(
        self, x: NDArray[Any], y: NDArray[Any], thief: Any, client: QueryClient, random: np.random.RandomState
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        pool = PoolByClass(y, self.replacement)
        bandit = GradientBandit(len(pool.rows))
        rewards = Rewards(self.reward, self.estimator.nb_classes)
        proxy = None
        if rewards.needs_thief:
            if not isinstance(thief, PyTorchClassifier):
                raise UserError("The rewards `loss` and `all` need a PyTorch thief; use `cert` or `div` with others.")
            proxy = ProxyModel(thief)
        rows: list[int] = []
        answers: list[NDArray[np.float32]] = []
        while len(rows) < self.nb_stolen and not client.stopped:
            block = min(self.step, self.nb_stolen - len(rows))
            actions, picked = self._draw(pool, bandit, block, random)
            images = np.asarray(x[picked], dtype=np.float32)
            answered = client.ask(images)
            kept = len(answered)
            logits = None
            if proxy is not None and kept:
                logits = proxy.learn(images[:kept], answered if self.use_probability else one_hot(answered))
            for i in range(kept):
                guess = None if logits is None else logits[i].astype(np.float64)
                bandit.update(actions[i], rewards(answered[i].astype(np.float64), guess))
            rows.extend(picked[:kept])
            answers.append(answered)
        return np.array(rows, np.int64), client.checked(np.concatenate(answers))

    def _draw(
        self, pool: PoolByClass, bandit: GradientBandit, count: int, random: np.random.RandomState
    ) -> tuple[list[int], list[int]]:
        actions: list[int] = []
        picked: list[int] = []
        probabilities = bandit.probabilities
        for _ in range(count):
            action = int(random.choice(len(probabilities), p=probabilities))
            actions.append(action)
            picked.append(pool.draw(action, random))
            if pool.left[action] == 0:
                bandit.exhausted[action] = True
                probabilities = bandit.probabilities
        return actions, picked
