"""Measure one cell: extract the defended victim with a budget, then score the thief."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from art_divqat._progress import phase
from art_divqat._rng import derive_seed
from art_divqat._types import Classifier, PhaseProgress
from art_divqat.attacks.extraction.contract import AttackContext
from art_divqat.attacks.extraction.fee import hidden_units
from art_divqat.attacks.extraction.registry import run_attack
from art_divqat.audit.bench import Bench
from art_divqat.audit.robustness import Measured, Robustness
from art_divqat.data.known_rows import forgetting
from art_divqat.data.stored import ImageSet, answers_to, chunk_of
from art_divqat.estimators import MeteredClassifier, QueryLedger
from art_divqat.metrics.answers import AllAnswers
from art_divqat.metrics.table import SAMPLES, measure_answers
from art_divqat.plan.cells import Cell, is_control_of
from art_divqat.results.journal import CellRecord, cell_record
from art_divqat.results.probes import PROBED, detail_of, sample_of
from art_divqat.results.samples import pack
from art_divqat.victims.serving import answering, known_to_the_attacker, serve
from art_divqat.victims.victim import Victim

_LATENCY_BATCH = 128
_LATENCY_RUNS = 3
_PROBES = 32


def run_cell(
    cell: Cell, bench: Bench, robustness: Robustness | None = None, progress: PhaseProgress | None = None
) -> CellRecord:
    """The journal record of one cell: a pure function of the cell and the bench's configuration, times aside.

    :param robustness: of the same bench, which knows what other cells have had measured of the victim.
    """
    robustness = robustness or Robustness(bench)
    victim = bench.victim(cell.victim, cell.seed, progress)
    started = time.perf_counter()
    clean = answering(victim)
    served = serve(victim, cell.defence, seed=cell.seed, context=bench.defence_context)
    ledger = QueryLedger(cell.budget, bench.config.repeat_queries)
    images = bench.attackers_images(cell.seed)
    images["own_labels"] = victim.labels(images.get("own_labels"))
    # One seed for every budget and every kind of answer: budgets are nested and thieves start from the same weights.
    context = AttackContext(
        victim=MeteredClassifier(served, ledger),
        **images,
        build_thief=lambda image_size=None: bench.fresh_thief(
            cell.seed,
            phase(progress, f"training the thief of {cell.victim}"),
            nb_classes=victim.classifier.nb_classes,
            image_size=image_size,
        ),
        budget=cell.budget,
        answers=cell.answers,
        seed=derive_seed("attack", cell.seed),
        known_defence=known_to_the_attacker(cell.defence, served, cell.seed),
        known_hidden_units=hidden_units(victim.classifier),
        pools={name: bench.other_pool(name) for name in cell.attack.entry.other_pools(cell.attack.own)},
    )
    outcome = run_attack(cell.attack, context)
    metrics, samples, probed, robust = _measure(bench, robustness, victim, outcome.thief, clean, served, cell, progress)
    details = {**outcome.details, **_diagnostics(bench, victim, outcome.thief, served, cell), **probed}
    curves = {}
    if robust is not None:
        metrics, samples, details = metrics | robust.metrics, samples | robust.samples, details | robust.details
        curves = robust.curves
    return cell_record(
        cell,
        queries=ledger.charged,
        metrics=metrics,
        samples=samples,
        details=details,
        curves=curves,
        victim_sha256=victim.sha256,
        seconds=round(time.perf_counter() - started, 3),
    )


def _measure(
    bench: Bench,
    robustness: Robustness,
    victim: Victim,
    thief: Any,
    clean: Classifier,
    served: Classifier,
    cell: Cell,
    progress: PhaseProgress | None,
) -> tuple[dict[str, float | None], dict[str, str], dict[str, float], Measured | None]:
    x, y = bench.dataset.x_test, victim.labels(bench.dataset.y_test)
    clean_answers, served_answers, thief_answers = (answers_to(part.predict, x) for part in (clean, served, thief))
    metrics, counted = measure_answers(AllAnswers(y, clean_answers, served_answers, thief_answers))
    details = {"majority_answer": float(np.bincount(served_answers.argmax(axis=1)).max() / len(x))}
    if getattr(thief, "probe", None) is not None:
        probe, hits = measure_answers(AllAnswers(y, clean_answers, served_answers, thief.probe.predict(x)))
        details |= {detail_of(name): value for name in PROBED if (value := probe.get(name)) is not None}
        counted |= {sample_of(key): hits[key] for name in PROBED if (key := SAMPLES[name]) in hits}
    # an endpoint's answers come from the journal, whose speed says nothing
    if not victim.capabilities.remote:
        with forgetting(victim.classifier):
            metrics["latency_us"] = _latency(served, x)
    samples = {key: pack(images) for key, images in counted.items()}
    rows = bench.evasion_rows
    if len(rows) == 0 or y is None or is_control_of(bench.config, cell.victim):
        return metrics, samples, details, None
    return metrics, samples, details, robustness.of_cell(cell, thief, served, served_answers[rows], progress)


def _diagnostics(bench: Bench, victim: Victim, thief: Any, served: Classifier, cell: Cell) -> dict[str, float]:
    """What the flags are computed from: whether the victim answers, and the thief was trained, as it should be."""
    known = victim.capabilities
    probe = bench.dataset.x_test[:_PROBES]
    once, again = served.predict(probe), served.predict(probe)
    error = max(float(np.abs(once.sum(axis=1, dtype=np.float64) - 1).max()), float(-once.min()), 0.0)
    details = {
        "victim_simplex_error": error,
        "victim_nondeterminism": max(float(np.abs(once - again).max()), known.nondeterminism),
        "victim_train_mode": float(known.in_train_mode()),
    }
    if cell.attack.entry.needs_pool:
        details["pool_overlap"] = bench.pool_overlap
    if cell.defence.links:
        details["adaptive_attacker"] = float(cell.attack.undoes_a_defence)
        if len(bench.evasion_rows):
            details["evasion_sees_defence"] = 0.0
    if len(bench.evasion_rows) and known.white_box is not None and known.own_defences is not None:
        details["own_defences"] = float(known.own_defences)
    losses = getattr(thief, "training_losses", [])
    if len(losses) > 1:
        last = losses[-max(2, math.ceil(len(losses) / 10)) :]
        details["thief_final_loss_slope"] = (last[-1] - last[0]) / max(float(np.mean(last)), 1e-12)
    return details


def _latency(served: Classifier, x: ImageSet) -> float:
    """Microseconds an image, median of a few calls of up to 128 images; rough, see evaluations/benchmarks/latency."""
    batch = x[: chunk_of(x.shape[1:], _LATENCY_BATCH)]
    times = []
    for _ in range(_LATENCY_RUNS):
        start = time.perf_counter()
        served.predict(batch)
        times.append(time.perf_counter() - start)
    return round(float(np.median(times)) / len(batch) * 1e6, 2)
