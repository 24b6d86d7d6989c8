"""Table of metrics: one frozen row a metric, read by whatever computes, compares, judges or shows one.

A new metric of answers to test images is one row here, with what computes it; one of robustness is computed
in `audit/robustness.py` and has a row here too. Reports, gate, comparisons, terminal and `docs/glossary.md` (whose test
says so) follow. Importing this module imports neither torch nor ART.

The order of the rows is the order of columns. Names that single questions are asked of are constants; no other module
lists names of metrics or compares with one, which `tests/metrics/test_table.py` checks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from art_divqat.metrics.answers import (
    AllAnswers,
    accuracy,
    extraction_ratio,
    kl_divergence,
    l1_distortion,
    label_flip_rate,
)

Kind = Literal[
    "ratio", "difference", "curve_difference", "defence_effect", "query_fraction", "best_attacker", "queries_added"
]

VICTIM_ACCURACY = "victim_accuracy"
DEFENDED_ACCURACY = "defended_accuracy"
THIEF_ACCURACY = "thief_accuracy"
AGREEMENT = "agreement"
AGREEMENT_CLEAN = "agreement_clean"
EXTRACTION_RATIO = "extraction_ratio"
VICTIM_ROBUST_ACCURACY = "victim_robust_accuracy"
THIEF_ROBUST_ACCURACY = "thief_robust_accuracy"
TRANSFER_ROBUST_ACCURACY = "transfer_robust_accuracy"


@dataclass(frozen=True)
class Metric:
    """One metric: what it is called, what it is, and how it is treated.

    :param name: its key in journals and in results.json.
    :param heading: its name over a column and in sentences of a report.
    :param meaning: what it is, as the end of a sentence that begins with the heading and a colon.
    :param subject: whose it is: the victim's (with its defence), or the thief's, where the thief has a part in it.
    :param worse: more of it, or less of it, is worse for the owner of the model.
    :param unit: `fraction` for a rate in [0, 1], which reports show in percent.
    :param bounds: what no value is beyond, nor any interval.
    :param images: what it is measured on: the test images, or those of them that evasion attacks start from.
    :param of_all: a rate of all of these images, so that one seed alone has an interval; False for a rate of a part.
    :param sample: the key, among the samples of a journal line, of which image counted; None if that is not kept.
    :param short: its heading on a terminal, broken at spaces; empty if a terminal does not show it.
    :param compared: in which comparisons of `results/comparisons.py` it stands.
    :param quotient_of: the two metrics whose quotient it is; what is said of them says it too.
    :param cost: part of what a defence costs those who use the model rightly, and shown there alone.
    :param only_defended: says nothing without a defence: it is then 0, or another metric's value.
    :param summarised: a column of :func:`art_divqat.report.summary_table`.
    :param watched: `art-divqat compare` says whether it is better or worse from one run to the next.
    :param of_answers: its value, where answers to the test images decide it otherwise than as the mean of `counted`;
        what it gives is None where there is no value.
    :param needs_labels: whether it is of answers that are right, and has no value where nobody knows which are.
    :param counted: which test images count, (N,): what is kept as its sample, and what it is the mean of.
    """

    name: str
    heading: str
    meaning: str
    subject: Literal["victim", "thief"]
    worse: Literal["higher", "lower"]
    unit: str = "fraction"
    bounds: tuple[float, float] = (0.0, 1.0)
    images: Literal["test", "evasion"] = "test"
    of_all: bool = True
    sample: str | None = None
    short: str = ""
    compared: tuple[Kind, ...] = ()
    quotient_of: tuple[str, str] | None = None
    cost: bool = False
    only_defended: bool = False
    summarised: bool = False
    watched: bool = False
    of_answers: Callable[[AllAnswers], float | None] | None = None
    counted: Callable[[AllAnswers], NDArray[Any]] | None = None
    needs_labels: bool = False

    @property
    def is_rate(self) -> bool:
        """Whether it is a fraction in [0, 1]."""
        return self.unit == "fraction"


_UNBOUNDED = (0.0, float("inf"))
_ROWS = (
    Metric(
        VICTIM_ACCURACY,
        "Victim accuracy",
        "the victim, right on test images",
        subject="victim",
        worse="lower",
        sample="victim_correct",
        short="victim acc.",
        compared=("difference",),
        watched=True,
        counted=lambda a: a.clean.argmax(axis=1) == a.known_labels,
        needs_labels=True,
    ),
    Metric(
        DEFENDED_ACCURACY,
        "Defended accuracy",
        "the victim behind its defence, right on test images",
        subject="victim",
        worse="lower",
        short="defended acc.",
        cost=True,
        only_defended=True,
        watched=True,
        of_answers=lambda a: accuracy(a.served, a.known_labels),
        needs_labels=True,
    ),
    Metric(
        "label_flip_rate",
        "Labels flipped",
        "served labels that the defence changed",
        subject="victim",
        worse="higher",
        short="label flips",
        cost=True,
        only_defended=True,
        of_answers=lambda a: label_flip_rate(a.served, a.clean),
    ),
    Metric(
        "l1_distortion",
        "L1 distortion",
        "Σ|served − true probability| for an answer, from 0 to 2",
        subject="victim",
        worse="higher",
        unit="probability",
        bounds=(0.0, 2.0),
        short="L1",
        cost=True,
        only_defended=True,
        of_answers=lambda a: l1_distortion(a.served, a.clean),
    ),
    Metric(
        "kl_divergence",
        "KL divergence",
        "of the served from the undefended answers, in nats",
        subject="victim",
        worse="higher",
        unit="nats",
        bounds=_UNBOUNDED,
        cost=True,
        only_defended=True,
        of_answers=lambda a: kl_divergence(a.clean, a.served),
    ),
    Metric(
        "latency_us",
        "Latency (µs)",
        "of one answer as it is served, from a few calls",
        subject="victim",
        worse="higher",
        unit="µs",
        bounds=_UNBOUNDED,
        cost=True,
    ),
    Metric(
        THIEF_ACCURACY,
        "Thief accuracy",
        "the thief, right on test images",
        subject="thief",
        worse="higher",
        sample="thief_correct",
        short="thief acc.",
        compared=("ratio", "defence_effect", "query_fraction", "best_attacker", "queries_added"),
        summarised=True,
        watched=True,
        counted=lambda a: a.thief.argmax(axis=1) == a.known_labels,
        needs_labels=True,
    ),
    Metric(
        AGREEMENT,
        "Agreement",
        "thief and victim give the same label; the labels that the victim serves",
        subject="thief",
        worse="higher",
        sample="agrees",
        short="agree- ment",
        compared=("ratio", "query_fraction", "best_attacker", "queries_added"),
        summarised=True,
        watched=True,
        counted=lambda a: a.thief.argmax(axis=1) == a.served.argmax(axis=1),
    ),
    Metric(
        AGREEMENT_CLEAN,
        "Agreement, undefended",
        "thief and undefended victim give the same label",
        subject="thief",
        worse="higher",
        sample="agrees_clean",
        compared=("ratio", "defence_effect"),
        only_defended=True,
        counted=lambda a: a.thief.argmax(axis=1) == a.clean.argmax(axis=1),
    ),
    Metric(
        EXTRACTION_RATIO,
        "Extraction ratio",
        "thief accuracy over victim accuracy",
        subject="thief",
        worse="higher",
        unit="ratio",
        bounds=_UNBOUNDED,
        short="extr. ratio",
        compared=("ratio",),
        quotient_of=(THIEF_ACCURACY, VICTIM_ACCURACY),
        summarised=True,
        of_answers=lambda a: extraction_ratio(accuracy(a.thief, a.known_labels), accuracy(a.clean, a.known_labels)),
        needs_labels=True,
    ),
    Metric(
        VICTIM_ROBUST_ACCURACY,
        "Victim robust accuracy",
        "the victim under white-box attack",
        subject="victim",
        worse="lower",
        images="evasion",
        sample=VICTIM_ROBUST_ACCURACY,
        short="victim rob.",
        compared=("difference",),
        summarised=True,
        watched=True,
    ),
    Metric(
        THIEF_ROBUST_ACCURACY,
        "Thief robust accuracy",
        "the thief under white-box attack",
        subject="thief",
        worse="higher",
        images="evasion",
        sample=THIEF_ROBUST_ACCURACY,
        short="thief rob.",
        compared=("difference", "curve_difference"),
        summarised=True,
    ),
    Metric(
        TRANSFER_ROBUST_ACCURACY,
        "Transfer robust accuracy",
        "the thief on examples crafted on the victim",
        subject="thief",
        worse="higher",
        images="evasion",
        sample=TRANSFER_ROBUST_ACCURACY,
        compared=("difference", "curve_difference"),
        summarised=True,
    ),
    Metric(
        "transfer_attack_success",
        "Transfer attack success",
        "examples crafted on the thief that fool the victim",
        subject="thief",
        worse="higher",
        images="evasion",
        of_all=False,
        short="transf. succ.",
        compared=("difference",),
        watched=True,
    ),
)

METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}
SAMPLES: dict[str, str] = {row.name: row.sample for row in _ROWS if row.sample is not None}


def measure_answers(answers: AllAnswers) -> tuple[dict[str, float | None], dict[str, NDArray[Any]]]:
    """Every metric of answers, and by the key of its sample which images counted.

    >>> import numpy as np
    >>> rows = np.eye(2)
    >>> metrics, counted = measure_answers(AllAnswers(np.array([0, 0]), rows, rows, rows[::-1]))
    >>> metrics["thief_accuracy"], counted["thief_correct"]
    (0.5, array([False,  True]))
    """
    values: dict[str, float | None] = {}
    samples: dict[str, NDArray[Any]] = {}
    for row in _ROWS:
        if row.needs_labels and answers.labels is None:
            continue
        if row.sample is not None and row.counted is not None:
            samples[row.sample] = row.counted(answers)
            values[row.name] = float(samples[row.sample].mean())
        elif row.of_answers is not None:
            values[row.name] = row.of_answers(answers)
    return values, samples


def select(wanted: Callable[[Metric], bool], first: str | None = None) -> tuple[str, ...]:
    """Name the metrics that a condition is true of, in the order of the table.

    :param first: one of them that leads all others.

    >>> select(lambda metric: metric.bounds == (0.0, 2.0))
    ('l1_distortion',)
    >>> select(lambda metric: "best_attacker" in metric.compared, first=AGREEMENT)
    ('agreement', 'thief_accuracy')
    """
    names = [row.name for row in _ROWS if wanted(row)]
    return tuple(sorted(names, key=lambda name: name != first))


def compared_by(kind: Kind, first: str | None = None) -> tuple[str, ...]:
    """Name the metrics that stand in one kind of comparison, in the order of the table.

    :param first: one of them that leads all others.

    >>> compared_by("curve_difference")
    ('thief_robust_accuracy', 'transfer_robust_accuracy')
    """
    return select(lambda metric: kind in metric.compared, first)


RATES = select(lambda metric: metric.is_rate)
