"""Estimate a run before it starts: its cells, its queries, its time; nothing is written."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from art_divqat._files import default_store
from art_divqat.attacks.extraction.registry import AttackSpec
from art_divqat.audit.costs import Costs
from art_divqat.audit.executor import default_jobs
from art_divqat.audit.external_model import as_answered, describe_model
from art_divqat.audit.preflight import preflight
from art_divqat.plan.cells import Cell, is_control_of, plan_cells
from art_divqat.plan.config import ResolvedConfig
from art_divqat.plan.looks import looks_of
from art_divqat.results.data_notes import data_notes
from art_divqat.victims.external.adapter import PROBE_IMAGES, REPEATED_IMAGES

_TIMED_IMAGES = 256
_TIMED_VALUES = _TIMED_IMAGES * 3 * 64 * 64


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
    """The plan of a configuration, with the time measured on one short training of a thief, and one of a victim.

    :param config: as :func:`art_divqat.api.prepare` gives it. The audited model is loaded and asked up to 128 test
        images; an endpoint only if `answers_file` says where its answers are kept.
    :raises UserError: for all that :func:`art_divqat.audit.run.run` refuses before it starts.
    """
    data, seconds_a_unit, victim_image = _measure(config)
    config = as_answered(config, data)
    # with seeds: auto, what it costs if nothing is decided before
    plan = plan_cells(config)
    costs = Costs(config, data, victim_image)
    jobs = config.jobs or default_jobs(config)
    trained = {(cell.victim, cell.seed) for cell in plan}
    units = sum(map(costs.of_cell, plan)) + sum(map(costs.of_victim, trained))
    seconds = units * seconds_a_unit / jobs
    on_control = [cell for cell in plan if is_control_of(config, cell.victim)]
    control = None
    if on_control:
        its_units = sum(map(costs.of_cell, on_control)) + costs.of_victim((on_control[0].victim, 0))
        its_seconds = round(its_units * seconds_a_unit / jobs, 3)
        control = {"victim": str(on_control[0].victim), "model": config.model, "cells": len(on_control)}
        control["seconds"] = its_seconds
    endpoint_queries = None
    if config.external is not None and config.external.is_remote:
        endpoint_queries = _endpoint_queries(plan, data)
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


def _measure(config: ResolvedConfig) -> tuple[dict[str, Any], float, float]:
    """The data, seconds for an image seen once by a thief in training, and how much dearer the victim's network is."""
    import torch

    from art_divqat.audit.bench import Bench
    from art_divqat.estimators.public import PublicClassifier

    bench = Bench(config, default_store())
    data = preflight(bench)
    if config.answers_file is not None:
        data["model"] = describe_model(bench)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        # of large images a step of a few says as much
        timed = max(2, min(_TIMED_IMAGES, _TIMED_VALUES // math.prod(bench.dataset.input_shape)))
        x, y = bench.dataset.x_train[:timed], bench.dataset.y_train[:timed]
        # of attacks whose thieves see images of several sizes, one that sees the largest
        attack = max(config.attacks, key=lambda each: math.prod(bench.thieves_see[each]))
        thief = bench.fresh_thief(0, image_size=attack.image_size)
        if isinstance(thief, PublicClassifier) and config.thief_training == "probe":
            seconds = _seconds(lambda: thief.features.computed(x)) / len(x)
        else:
            seconds = _seconds(lambda: thief.fit(x, y, nb_epochs=1)) / len(x)
        seconds *= math.prod(bench.dataset.input_shape) / math.prod(bench.thieves_see[attack])
        if config.model == config.thief_model or all(victim.is_external for victim in config.victims):
            return data, seconds, 1.0
        victim = bench.victims.untrained(0)
        return data, seconds, _seconds(lambda: victim.fit(x, y, nb_epochs=1)) / len(x) / seconds
    finally:
        torch.set_num_threads(threads)


def _seconds(train: Callable[[], object]) -> float:
    # the first call pays for what torch sets up once
    train()
    start = time.perf_counter()
    train()
    return time.perf_counter() - start


def _endpoint_queries(plan: Sequence[Cell], data: dict[str, Any]) -> int:
    """Budgets are nested: one attack asks each pool image once, whatever the answers are used for and how often."""
    largest: dict[tuple[AttackSpec, str, int], int] = {}
    plan = [cell for cell in plan if cell.victim.is_external]
    for cell in plan:
        key = (cell.attack, cell.answers, cell.seed)
        largest[key] = max(largest.get(key, 0), cell.budget)
    test = int(data["dataset"]["test"]) + min(PROBE_IMAGES, REPEATED_IMAGES)
    return sum(largest.values()) + test + len(plan) * int(data["evasion_images"])
