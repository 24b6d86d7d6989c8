"""Pool scouting: try many pools with a share of the budget, spend the rest where answers distinguish the classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from art_divqat._rng import derive_seed, isolated_random_state, numpy_generator
from art_divqat._types import Images
from art_divqat.attacks.extraction._base import (
    QueryClient,
    SafeExtraction,
    allocate,
    allocate_images,
    check_thief,
    fit_thief,
)
from art_divqat.attacks.extraction.mutation import mutated
from art_divqat.attacks.extraction.parameters import POOL_QUERIES, SCOUT, SEED
from art_divqat.data.stored import ImageSet, chunk_of, is_large, take
from art_divqat.errors import UserError
from art_divqat.parameters import Parameters

if TYPE_CHECKING:
    from art_divqat.attacks.extraction.contract import ImageSource

POOL = "pool"
REFINED = "refined"
# a pool that no longer looks the best is still asked a little, as its score is an estimate
_LEAST_SHARE = 0.01


def information(answers: NDArray[np.floating[Any]]) -> float:
    """H(ȳ) − mean of H(y), in nats: what an answer tells about the class, on average.

    It is large where answers are confident *and* name every class alike often; 0 where all answers are the same,
    however confident. It is the mutual information of image and class under the served probabilities.

    :param answers: rows of probabilities, (N, classes); none tell nothing.
    :return: from 0 to log(classes).

    >>> round(information(np.eye(2)), 3), information(np.array([[0.9, 0.1]] * 5)), information(np.zeros((0, 3)))
    (0.693, 0.0, 0.0)
    """
    from scipy.special import entr

    if len(answers) == 0:
        return 0.0
    rows = answers.astype(np.float64)
    return max(0.0, float(entr(rows.mean(axis=0)).sum() - entr(rows).sum(axis=1).mean()))


@dataclass
class Source:
    """Where a scout takes images from: `draw(count, call)` gives up to so many, other ones for every call."""

    draw: Callable[[int, object], Images]
    asked: int = 0
    exhausted: bool = False
    answers: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def score(self) -> float:
        """:func:`information` of all its answers so far."""
        return information(np.concatenate(self.answers)) if self.answers else 0.0


class PoolScout(SafeExtraction):
    """Score every source by I = H(ȳ) − mean H(y) of its answers to a few images, and ask on in proportion to Iᵖ.

    KnockoffNets lets the attacker's one pool decide how much is stolen. This attacker has several: the given one, and
    pictures that programs make. The first `share` of the queries is spread evenly over them; the rest goes in `rounds`
    rounds to the sources whose answers tell the classes apart, as known by then. From the second round on there is one
    more source, `refined`: images that were answered with confidence, the rarer classes first, moved, turned, stretched
    and laid over each other. Every image that is asked is charged, and the thief learns from all of them.

    :param classifier: the victim.
    :param batch_size_fit: images a training step.
    :param batch_size_query: images a call to the victim.
    :param nb_epochs: epochs of the thief's training.
    :param nb_stolen: queries to spend.
    :param share: the share of them that is spread evenly at first, in (0, 1].
    :param rounds: rounds after that, in which sources are weighed anew.
    :param power: p, at least 0; 0 goes on asking all sources alike.
    :param seed: decides every draw; an int in [0, 2³²).
    :param sources: other pools beside the given one, by name: images, or functions of (number, seed) that make them.

    >>> sorted(PoolScout.declared)[-4:]
    ['power', 'rounds', 'seed', 'share']
    """

    declared: ClassVar[Parameters] = {
        **POOL_QUERIES,
        **{name: parameter for name, parameter in SCOUT.items() if name != "pools"},
    }
    attack_params: ClassVar[list[str]] = [*SafeExtraction.attack_params, *declared, "sources"]

    def __init__(
        self,
        classifier: Any,
        batch_size_fit: int = POOL_QUERIES["batch_size_fit"].default,
        batch_size_query: int = POOL_QUERIES["batch_size_query"].default,
        nb_epochs: int = POOL_QUERIES["nb_epochs"].default,
        nb_stolen: int = POOL_QUERIES["nb_stolen"].default,
        *,
        share: float = SCOUT["share"].default,
        rounds: int = SCOUT["rounds"].default,
        power: float = SCOUT["power"].default,
        seed: int = SEED["seed"].default,
        sources: Mapping[str, ImageSource] | None = None,
    ) -> None:
        super().__init__(estimator=classifier)
        self.batch_size_fit = batch_size_fit
        self.batch_size_query = batch_size_query
        self.nb_epochs = nb_epochs
        self.nb_stolen = nb_stolen
        self.share = share
        self.rounds = rounds
        self.power = power
        self.seed = seed
        self.sources = dict(sources or {})
        self._check_params()

    def extract(self, x: NDArray[Any] | None, y: NDArray[Any] | None = None, **kwargs: Any) -> Any:
        """Spend `nb_stolen` queries and return the thief, trained in place.

        `details` holds how many images were asked of each source, and its score.

        :param x: the attacker's own pool, of shape (N, C, H, W), or None for none; unchanged.
        :param y: not used.
        :param thieved_classifier: the fresh ART classifier to train.
        :raises UserError: for no pool and no sources, or a thief of another class count.
        :raises QueryBudgetExceededError: when the victim's budget is spent first.
        """
        del y
        thief = check_thief(self.estimator, kwargs.get("thieved_classifier"))
        sources = self._sources(x)
        if not sources:
            raise UserError("There is nothing to scout: give a pool, or sources that make images.")
        client = QueryClient(self.estimator, self.batch_size_query)
        with isolated_random_state("scout", self.seed):
            log = _Log(client, self.nb_stolen, tuple(thief.input_shape), self.estimator.nb_classes)
            self._spend(log, sources)
            client.checked(log.answers[: log.kept])
            fit_thief(
                thief,
                take(log.images, slice(log.kept)),
                log.answers[: log.kept],
                batch_size=self.batch_size_fit,
                nb_epochs=self.nb_epochs,
            )
        told = {f"asked_{name}": float(source.asked) for name, source in sources.items()}
        scores = {f"information_{name}": source.score for name, source in sources.items()}
        self._note(log.kept, client, **told, **scores)
        return thief

    def _spend(self, log: _Log, sources: dict[str, Source]) -> None:
        """The first share evenly, the rest in rounds; where finite sources run dry in the last, in some more."""
        first = max(min(len(sources), self.nb_stolen), round(self.share * self.nb_stolen))
        counts = _allot(min(first, self.nb_stolen), dict.fromkeys(sources, 1.0))
        call = 0
        while log.kept < self.nb_stolen and not log.client.stopped:
            if call:
                sources.setdefault(REFINED, Source(lambda number, call: self._refined(log, number, call)))
                rounds_left = max(1, 1 + self.rounds - call)
                counts = _allot(-(-(self.nb_stolen - log.kept) // rounds_left), self._weights(sources))
            self._ask(log, sources, counts, call)
            call += 1

    def _sources(self, x: NDArray[Any] | None) -> dict[str, Source]:
        pools = {**({} if x is None else {POOL: x}), **self.sources}
        sources = {}
        for name, pool in pools.items():
            if callable(pool):
                sources[name] = Source(self._maker(name, pool))
            elif len(pool):
                sources[name] = Source(self._drawer(name, pool))
        return sources

    def _maker(self, name: str, make: Callable[[int, int], Images]) -> Callable[[int, object], Images]:
        return lambda count, call: make(count, derive_seed("scout", name, self.seed, call))

    def _drawer(self, name: str, pool: ImageSet) -> Callable[[int, object], Images]:
        """Each image of a pool once, in an order that the seed decides."""
        order = numpy_generator("scout", name, self.seed).permutation(len(pool))
        start = 0

        def draw(count: int, call: object) -> Images:
            nonlocal start
            del call
            rows = order[start : start + count]
            start += len(rows)
            return np.asarray(pool[rows], np.float32)

        return draw

    def _weights(self, sources: Mapping[str, Source]) -> dict[str, float]:
        """What the next images are divided by; a source that was never asked counts as the best so far."""
        scores = {name: source.score for name, source in sources.items() if not source.exhausted}
        best = max(scores.values(), default=0.0)
        weights = {}
        for name, score in scores.items():
            known = score if sources[name].asked else best
            weights[name] = max((known / best) ** self.power if best > 0 else 1.0, _LEAST_SHARE)
        return weights

    def _ask(self, log: _Log, sources: Mapping[str, Source], counts: Mapping[str, int], call: int) -> None:
        """Draw and ask all together; so many large images that the memory does not hold them, in several pieces."""
        total = sum(counts.values())
        shape = log.images.shape[1:]
        pieces = -(-total // chunk_of(shape)) if is_large(total, shape) else 1
        for piece in range(pieces):
            part = {name: count * (piece + 1) // pieces - count * piece // pieces for name, count in counts.items()}
            self._ask_together(log, sources, part, call if pieces == 1 else f"{call}.{piece}")
            if log.client.stopped:
                return

    def _ask_together(self, log: _Log, sources: Mapping[str, Source], counts: Mapping[str, int], call: object) -> None:
        """A recovery that compares the answers of a call then compares all sources."""
        parts, owners = [], []
        for name, count in counts.items():
            images = sources[name].draw(count, call) if count else np.zeros((0, *log.images.shape[1:]), np.float32)
            sources[name].exhausted |= len(images) < count
            parts.append(images[:count])
            owners += [name] * min(len(images), count)
        if not owners:
            return
        order = numpy_generator("scout order", self.seed, call).permutation(len(owners))
        answers = log.ask(np.concatenate(parts)[order])
        names = np.array(owners)[order][: len(answers)]
        for name in counts:
            mine = names == name
            sources[name].asked += int(mine.sum())
            sources[name].answers.append(answers[mine])

    def _refined(self, log: _Log, count: int, call: object) -> Images:
        """Mutations of images that were answered with confidence, drawn so that every class comes alike often."""
        rng = numpy_generator("scout", REFINED, self.seed, call)
        answers = log.answers[: log.kept].astype(np.float64)
        labels = answers.argmax(axis=1)
        often = np.bincount(labels, minlength=answers.shape[1])
        # above the usual level of its class: of a victim that always names one class, what names another
        weights = np.maximum(answers.max(axis=1) - 1 / answers.shape[1], 1e-6) / often[labels]
        weights /= weights.sum()
        first, second = (rng.choice(log.kept, count, p=weights) for _ in range(2))
        return mutated(log.images[first], log.images[second], rng)


class _Log:
    """The images that were asked, and their answers, in order."""

    def __init__(self, client: QueryClient, size: int, shape: tuple[int, ...], classes: int) -> None:
        self.client = client
        self.images = allocate_images(size, shape)
        self.answers = allocate((size, classes))
        self.kept = 0

    def ask(self, images: Images) -> NDArray[np.float32]:
        """Ask, call by call, and keep what was answered."""
        start = self.kept
        for first in range(0, len(images), self.client.batch_size):
            part = images[first : first + self.client.batch_size]
            written = slice(self.kept, self.kept + len(part))
            self.images[written] = part
            answered = self.client.ask(self.images[written])
            end = self.kept + len(answered)
            self.answers[self.kept : end] = answered
            self.kept = end
            if self.client.stopped:
                break
        return self.answers[start : self.kept]


def _allot(count: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers in proportion to the weights that add up to `count`; the largest remainders are rounded up.

    >>> _allot(10, {"a": 1.0, "b": 1.0, "c": 1.0})
    {'a': 4, 'b': 3, 'c': 3}
    """
    if not weights:
        return {}
    exact = np.array(list(weights.values())) / sum(weights.values()) * count
    whole = np.floor(exact).astype(int)
    up = np.argsort(-(exact - whole), kind="stable")[: count - int(whole.sum())]
    whole[up] += 1
    return dict(zip(weights, whole.tolist(), strict=True))
