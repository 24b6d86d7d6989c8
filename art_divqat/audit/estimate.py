"""Estimate a run before it starts: its cells, its queries, its time; nothing is written."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from art_divqat._files import default_store
from art_divqat.attacks.extraction.registry import AttackSpec
from art_divqat.audit.costs import Costs
from art_divqat.audit.environment import resolve_device
from art_divqat.audit.executor import default_jobs
from art_divqat.audit.external_model import as_answered, describe_model
from art_divqat.audit.preflight import preflight
from art_divqat.data.known_rows import forgetting
from art_divqat.plan.cells import Cell, is_control_of, plan_cells
from art_divqat.plan.config import ResolvedConfig
from art_divqat.plan.looks import looks_of
from art_divqat.results.data_notes import data_notes
from art_divqat.victims.external.adapter import PROBE_IMAGES, REPEATED_IMAGES

if TYPE_CHECKING:
    from art_divqat.audit.bench import Bench
    from art_divqat.data.stored import ImageSet

_TIMED_IMAGES = 256
# of what takes longer, two images say as much
_TIMED_SECONDS = 0.5
# a local model that is not remembered is asked, in each cell, about the test images clean and served, and some again
_ASKED_A_CELL = 2


@dataclass(frozen=True)
class RunEstimate:
    """A plan in numbers.

    :param attack_queries: what all attackers together may spend, on the control too.
    :param endpoint_queries: the most images that a live endpoint would be asked, the attackers' among them; an image
        that comes again is not asked again. None without an endpoint.
    :param seconds: about how long on this machine if nothing is kept from an earlier run.
    :param data_notes: what was done to the images on their way in.
    :param model: what is known of the audited model, once it was tried; None without one.
    :param control: the positive control: its `victim`, its `model`, and of the plan its `cells` and `seconds`; None
        without one.
    :param weights: whose public weights the `victim`'s and the `thief`'s network begin from; None without any.
    :param thief_images: the height and width that thieves shrink images to, by the attacks that do.
    """

    cells: int
    victims: int
    seeds: int
    attack_queries: int
    endpoint_queries: int | None
    jobs: int
    seconds: float
    data_notes: tuple[str, ...] = ()
    model: dict[str, Any] | None = None
    control: dict[str, Any] | None = None
    weights: dict[str, Any] | None = None
    thief_images: dict[str, list[int]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def estimate(config: ResolvedConfig) -> RunEstimate:
    """The plan of a configuration, with the time measured on a short training of a thief and of a victim, and on a few
    passes of an audited model.

    :param config: as :func:`art_divqat.api.prepare` gives it. The audited model is loaded and asked up to 128 test
        images; an endpoint only if `answers_file` says where its answers are kept.
    :raises UserError: for all that :func:`art_divqat.audit.run.run` refuses before it starts.
    """
    data, seconds_a_unit, victim_image, model = _measure(config)
    config = as_answered(config, data)
    # with seeds: auto, what it costs if nothing is decided before
    plan = plan_cells(config)
    costs = Costs(config, data, victim_image)
    jobs = config.jobs or (default_jobs(config) if config.executor == "local" else 1)
    trained = {(cell.victim, cell.seed) for cell in plan}
    units = sum(map(costs.of_cell, plan)) + sum(map(costs.of_victim, trained)) + costs.of_test
    seconds = (units * seconds_a_unit + model.seconds(plan, data)) / jobs
    on_control = [cell for cell in plan if is_control_of(config, cell.victim)]
    control = None
    if on_control:
        its_units = sum(map(costs.of_cell, on_control)) + costs.of_victim((on_control[0].victim, 0))
        its_seconds = round(its_units * seconds_a_unit / jobs, 3)
        control = {"victim": str(on_control[0].victim), "model": config.model, "cells": len(on_control)}
        control["seconds"] = its_seconds
    endpoint_queries = None
    if config.external is not None and config.external.is_remote:
        endpoint_queries = _distinct_queries(plan, data)
        seconds += endpoint_queries / (config.external.rate or math.inf)
    return RunEstimate(
        cells=len(plan),
        victims=len(trained),
        seeds=looks_of(config)[-1],
        attack_queries=sum(cell.budget for cell in plan),
        endpoint_queries=endpoint_queries,
        jobs=jobs,
        seconds=round(seconds, 3),
        data_notes=tuple(data_notes(data)),
        model=data.get("model"),
        control=control,
        weights=data.get("weights"),
        thief_images=data.get("thief_images", {}),
    )


@dataclass(frozen=True)
class _Model:
    """An audited model that is here.

    :param image: seconds that an image takes.
    :param remembered: whether it is asked about each only once in a run.
    """

    image: float = 0.0
    remembered: bool = False

    def seconds(self, plan: Sequence[Cell], data: dict[str, Any]) -> float:
        """What its own answers take in a run."""
        if self.remembered:
            return self.image * _distinct_queries(plan, data)
        asked = [cell.budget + _ASKED_A_CELL * int(data["dataset"]["test"]) for cell in plan if cell.victim.is_external]
        return self.image * sum(asked)


def _measure(config: ResolvedConfig) -> tuple[dict[str, Any], float, float, _Model]:
    """The data, seconds for an image seen once by a thief in training, how much dearer one is in the victim's network,
    and the audited model.
    """
    import torch

    from art_divqat.audit.bench import Bench
    from art_divqat.estimators.public import PublicClassifier

    if config.executor != "local":
        # it is timed here
        resolve_device(config.device)
    bench = Bench(config, default_store())
    data = preflight(bench)
    if config.answers_file is not None:
        data["model"] = describe_model(bench)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        x, y = bench.dataset.x_train, bench.dataset.y_train
        model = _timed_model(bench, x)
        # of attacks whose thieves see images of several sizes, one that sees the largest
        attack = max(config.attacks, key=lambda each: math.prod(bench.thieves_see[each]))
        thief = bench.fresh_thief(0, image_size=attack.image_size)
        if isinstance(thief, PublicClassifier) and config.thief_training == "probe":
            features = thief.features
            seconds = _seconds_an_image(lambda count: features.computed(x[:count]), len(x))
        else:
            seconds = _seconds_an_image(lambda count: thief.fit(x[:count], y[:count], nb_epochs=1), len(x))
        seconds *= math.prod(bench.dataset.input_shape) / math.prod(bench.thieves_see[attack])
        if config.model == config.thief_model or all(victim.is_external for victim in config.victims):
            return data, seconds, 1.0, model
        victim = bench.victims.untrained(0)
        of_victim = _seconds_an_image(lambda count: victim.fit(x[:count], y[:count], nb_epochs=1), len(x))
        return data, seconds, of_victim / seconds, model
    finally:
        torch.set_num_threads(threads)


def _timed_model(bench: Bench, x: ImageSet) -> _Model:
    """The audited model, if it is here: an endpoint's rate is known, and it is not asked for nothing."""
    external = next((victim for victim in bench.config.victims if victim.is_external), None)
    if external is None or bench.config.external is None or bench.config.external.is_remote:
        return _Model()
    classifier: Any = bench.victims.external(external).classifier
    with forgetting(classifier):
        image = _seconds_an_image(lambda count: classifier.predict(x[:count]), len(x))
    return _Model(image, classifier.memory is not None)


def _seconds_an_image(work: Callable[[int], object], most: int) -> float:
    """Seconds for each image of a call, two images or, of what is fast, up to 256."""

    def clocked(count: int) -> float:
        start = time.perf_counter()
        work(count)
        return (time.perf_counter() - start) / count

    # the first call pays for what torch sets up once
    work(2)
    image = clocked(2)
    more = min(most, _TIMED_IMAGES, int(_TIMED_SECONDS / max(image, 1e-9)))
    return clocked(more) if more > 2 else image


def _distinct_queries(plan: Sequence[Cell], data: dict[str, Any]) -> int:
    """Budgets are nested: one attack asks each pool image once, whatever the answers are used for and how often."""
    largest: dict[tuple[AttackSpec, str, int], int] = {}
    plan = [cell for cell in plan if cell.victim.is_external]
    for cell in plan:
        key = (cell.attack, cell.answers, cell.seed)
        largest[key] = max(largest.get(key, 0), cell.budget)
    test = int(data["dataset"]["test"]) + min(PROBE_IMAGES, REPEATED_IMAGES)
    return sum(largest.values()) + test + len(plan) * int(data["evasion_images"])
