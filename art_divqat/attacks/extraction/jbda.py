"""Jacobian-based data-set augmentation: grow a small seed set towards the thief's decision boundaries."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from art_divqat._rng import isolated_random_state
from art_divqat.attacks.extraction._base import (
    ProxyModel,
    QueryClient,
    SafeExtraction,
    allocate,
    allocate_images,
    check_thief,
    fill_images,
    fit_thief,
)
from art_divqat.attacks.extraction.parameters import JBDA, POOL_QUERIES, SEED, check_pool, seeds_only
from art_divqat.data.stored import ImageSet, chunk_of, take
from art_divqat.estimators.recipe import batches, training_step
from art_divqat.parameters import Parameters


class JacobianAugmentation(SafeExtraction):
    """x′ = clip(x + λ sign ∂f_A(x)[label(x)] / ∂x): each round doubles the images and asks the victim for the new ones.

    Papernot et al. (AsiaCCS 2017) step along the thief's logit of the class that the victim named. The form
    `targeted-random` (Juuti et al., PRADA, EuroS&P 2019) takes `steps` steps of λ/steps each that lower the thief's
    loss for a random other class. Between rounds a proxy network learns from all answers so far; the thief is trained
    once, at the end, from its own initial weights. Both forms start from `nb_seeds` random images of the pool, and the
    last round stops at the budget.

    | Paper link: https://arxiv.org/abs/1602.02697 and https://arxiv.org/abs/1805.02628

    :param classifier: the victim.
    :param batch_size_fit: images a training step.
    :param batch_size_query: images a call to the victim.
    :param nb_epochs: epochs of the thief's training.
    :param nb_stolen: queries to spend, seeds included.
    :param nb_seeds: images of the pool to start from; at most `nb_stolen` are used.
    :param variant: `papernot` or `targeted-random`.
    :param step_size: λ, in (0, 1], in units of a pixel's range.
    :param steps: gradient steps an image; `targeted-random` only.
    :param round_epochs: epochs of the proxy between two rounds.
    :param seed: decides every draw; an int in [0, 2³²).
    """

    declared: ClassVar[Parameters] = {**POOL_QUERIES, **JBDA}
    attack_params: ClassVar[list[str]] = [*SafeExtraction.attack_params, *declared]

    def __init__(
        self,
        classifier: Any,
        batch_size_fit: int = POOL_QUERIES["batch_size_fit"].default,
        batch_size_query: int = POOL_QUERIES["batch_size_query"].default,
        nb_epochs: int = POOL_QUERIES["nb_epochs"].default,
        nb_stolen: int = POOL_QUERIES["nb_stolen"].default,
        *,
        nb_seeds: int = JBDA["nb_seeds"].default,
        variant: str = JBDA["variant"].default,
        step_size: float = JBDA["step_size"].default,
        steps: int = JBDA["steps"].default,
        round_epochs: int = JBDA["round_epochs"].default,
        seed: int = SEED["seed"].default,
    ) -> None:
        super().__init__(estimator=classifier)
        self.batch_size_fit = batch_size_fit
        self.batch_size_query = batch_size_query
        self.nb_epochs = nb_epochs
        self.nb_stolen = nb_stolen
        self.nb_seeds = nb_seeds
        self.variant = variant
        self.step_size = step_size
        self.steps = steps
        self.round_epochs = round_epochs
        self.seed = seed
        self._check_params()

    def extract(self, x: NDArray[Any], y: NDArray[Any] | None = None, **kwargs: Any) -> Any:
        """Spend `nb_stolen` queries and return the thief, trained in place.

        :param x: the pool that the seeds are drawn from, of shape (N, C, H, W); unchanged.
        :param y: not used.
        :param thieved_classifier: the fresh PyTorch thief to train.
        :raises UserError: for a pool smaller than the seeds, or a thief of another class count or without gradients.
        :raises QueryBudgetExceededError: when the victim's budget is spent first.
        """
        del y
        thief = check_thief(self.estimator, kwargs.get("thieved_classifier"), needs_gradients=True)
        seeds = seeds_only(self.nb_stolen, vars(self))
        check_pool(len(x), seeds)
        random = np.random.RandomState(self.seed)
        client = QueryClient(self.estimator, self.batch_size_query)
        images = allocate_images(self.nb_stolen, x.shape[1:])
        answers = allocate((self.nb_stolen, self.estimator.nb_classes))
        with isolated_random_state("jbda", self.seed):
            chosen = random.permutation(len(x))[:seeds]
            fill_images(images, take(x, chosen))
            kept = self._ask(client, images, answers, 0, seeds)
            client.checked(answers[:kept])
            proxy, rounds = ProxyModel(thief), 0
            while kept < self.nb_stolen and not client.stopped:
                self._learn(proxy, take(images, slice(kept)), answers[:kept])
                new = min(kept, self.nb_stolen - kept)
                # every image once a round; in the last, cut short, a random part of them
                parents = random.permutation(kept)[:new] if new < kept else np.arange(kept)
                for part in np.array_split(parents, max(1, new // chunk_of(x.shape[1:], self.batch_size_query))):
                    end = kept + len(part)
                    images[kept:end] = self._augmented(proxy, images[part], answers[part], random)
                    before, kept = kept, self._ask(client, images, answers, kept, end)
                    if kept < before + len(part):
                        break
                rounds += 1
            asked = take(images, slice(kept))
            fit_thief(thief, asked, answers[:kept], batch_size=self.batch_size_fit, nb_epochs=self.nb_epochs)
        self._note(kept, client, seeds=float(min(seeds, kept)), rounds=float(rounds))
        return thief

    def _ask(self, client: QueryClient, images: ImageSet, answers: NDArray[np.float32], start: int, end: int) -> int:
        """Ask images[start:end], write the answers there, and return where the usable ones end."""
        step = chunk_of(images.shape[1:], self.batch_size_query)
        for first in range(start, end, step):
            answered = client.ask(images[first : min(end, first + step)])
            answers[first : first + len(answered)] = answered
            if client.stopped:
                return first + len(answered)
        return end

    def _learn(self, proxy: ProxyModel, images: ImageSet, answers: NDArray[np.float32]) -> None:
        proxy.network.train()
        for _ in range(self.round_epochs):
            for rows in batches(torch.randperm(len(images)), self.batch_size_fit):
                x = torch.from_numpy(images[rows.numpy()]).to(proxy.device)
                y = torch.from_numpy(answers[rows.numpy()]).to(proxy.device)
                training_step(proxy.network, proxy.optimizer, x, y)
        proxy.network.eval()

    def _augmented(
        self,
        proxy: ProxyModel,
        images: NDArray[np.float32],
        answers: NDArray[np.float32],
        random: np.random.RandomState,
    ) -> NDArray[np.float32]:
        classes = answers.shape[1]
        labels = torch.from_numpy(answers.argmax(axis=1)).to(proxy.device)
        x = torch.from_numpy(np.array(images)).to(proxy.device)
        if self.variant == "papernot":
            logits = self._gradient(proxy.network, x, lambda z: z.gather(1, labels[:, None]).sum())
            return (x + self.step_size * logits.sign()).clamp(0, 1).cpu().numpy()
        shift = torch.from_numpy(random.randint(1, classes, len(images))).to(proxy.device)
        targets = (labels + shift) % classes
        for _ in range(self.steps):
            uphill = self._gradient(
                proxy.network, x, lambda z: nn.functional.cross_entropy(z, targets, reduction="sum")
            )
            x = (x - self.step_size / self.steps * uphill.sign()).clamp(0, 1)
        return x.cpu().numpy()

    @staticmethod
    def _gradient(network: nn.Module, x: torch.Tensor, value: Any) -> torch.Tensor:
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(value(network(x)), x)
        return gradient
