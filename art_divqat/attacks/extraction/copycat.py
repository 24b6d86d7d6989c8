"""CopycatCNN: label random images of the pool by the victim and train a thief on them.

ART's attack on this package's base: one seed, no copies, refused budgets, answers kept.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from art.attacks.extraction import CopycatCNN as ArtCopycatCNN
from numpy.typing import NDArray

from art_divqat._arrays import one_hot
from art_divqat._rng import isolated_random_state
from art_divqat.attacks.extraction._base import QueryClient, SafeExtraction, check_thief, fit_thief
from art_divqat.attacks.extraction.parameters import POOL_QUERIES, SEED, check_pool, whole_budget


class CopycatCNN(SafeExtraction, ArtCopycatCNN):  # type: ignore[misc]
    """Query random images of a pool, train a thief on the *classes* that the victim names.

    An ART `CopycatCNN` that draws every number from `seed`, copies no image, and keeps what it paid for when the
    victim's answers become unusable. From the same stream of random numbers it asks for the same images as ART's.

    | Paper link: https://arxiv.org/abs/1806.05476

    :param classifier: the victim.
    :param batch_size_fit: images a training step of the thief.
    :param batch_size_query: images a call to the victim.
    :param nb_epochs: epochs of the thief's training.
    :param nb_stolen: queries to spend.
    :param use_probability: train on the answers instead of their top class; not the published attack.
    :param seed: decides every draw; an int in [0, 2³²).
    """

    declared = SEED
    attack_params: ClassVar[list[str]] = [*ArtCopycatCNN.attack_params, *declared]

    def __init__(
        self,
        classifier: Any,
        batch_size_fit: int = POOL_QUERIES["batch_size_fit"].default,
        batch_size_query: int = POOL_QUERIES["batch_size_query"].default,
        nb_epochs: int = POOL_QUERIES["nb_epochs"].default,
        nb_stolen: int = POOL_QUERIES["nb_stolen"].default,
        use_probability: bool = False,
        *,
        seed: int = SEED["seed"].default,
    ) -> None:
        self.seed = seed
        self.chosen: NDArray[np.int64] = np.zeros(0, np.int64)
        super().__init__(classifier, batch_size_fit, batch_size_query, nb_epochs, nb_stolen, use_probability)

    def extract(self, x: NDArray[Any], y: NDArray[Any] | None = None, **kwargs: Any) -> Any:
        """Spend `nb_stolen` queries and return the thief, trained in place.

        :param x: the pool, of shape (N, C, H, W); unchanged.
        :param y: not used.
        :param thieved_classifier: the fresh ART classifier to train.
        :raises UserError: for a pool smaller than `nb_stolen`, or a thief of another class count.
        :raises QueryBudgetExceededError: when the victim's budget is spent first.
        """
        del y
        thief = check_thief(self.estimator, kwargs.get("thieved_classifier"))
        check_pool(len(x), whole_budget(self.nb_stolen, vars(self)))
        client = QueryClient(self.estimator, self.batch_size_query)
        random = np.random.RandomState(self.seed)
        rows: NDArray[np.int64] = np.asarray(random.permutation(len(x)), np.int64)[: self.nb_stolen]
        with isolated_random_state("copycat", self.seed):
            answers = client.ask_rows(x, rows)
            labels = answers if self.use_probability else one_hot(answers)
            self.chosen = rows[: len(answers)]
            fit_thief(thief, x, labels, self.chosen, batch_size=self.batch_size_fit, nb_epochs=self.nb_epochs)
        self._note(len(answers), client)
        return thief
