"""Probe rows: the linear probe as an attacker of its own, if it did better than the thief."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from art_divqat.attacks.extraction.registry import read_attack
from art_divqat.metrics.table import METRICS, SAMPLES, select
from art_divqat.results.journal import CellRecord
from art_divqat.specs import Spec

_PREFIX = "linear_probe_"
_THIEF = {"thief": "linear"}
# what is counted of the answers that a thief gives to the test images
PROBED = select(lambda metric: metric.subject == "thief" and metric.counted is not None)
_RATED = select(lambda metric: metric.name in PROBED and "best_attacker" in metric.compared)
_OF_VICTIM = select(lambda metric: metric.subject == "victim" and metric.images == "test")


def detail_of(metric: str) -> str:
    """The detail of a cell that holds a metric of its probe.

    >>> detail_of("agreement"), detail_of("thief_accuracy")
    ('linear_probe_agreement', 'linear_probe_accuracy')
    """
    return f"{_PREFIX}{metric.removeprefix('thief_')}"


def sample_of(sample: str) -> str:
    """The sample of a cell that says of which images its probe made a thief's sample true."""
    return f"{_PREFIX}{sample}"


def is_probe(attack: str) -> bool:
    """Whether results name a probe so.

    >>> is_probe("knockoff:thief=linear"), is_probe("knockoff")
    (True, False)
    """
    return read_attack(attack).as_dict.get("thief") == _THIEF["thief"]


def probed(attack: str) -> str:
    """The attack whose answers a probe read; any other attack as it is.

    >>> probed("scout:rounds=2,thief=linear"), probed("knockoff")
    ('scout:rounds=2', 'knockoff')
    """
    if not is_probe(attack):
        return attack
    spec = read_attack(attack)
    return str(Spec(spec.name, tuple(each for each in spec.parameters if each[0] not in _THIEF)))


def with_probes(records: Sequence[CellRecord]) -> list[CellRecord]:
    """The records, each followed by that of its probe where the probe's curve ends above that of the thief.

    Above in agreement or in accuracy, at the largest budget and over the seeds. Journals of earlier versions do not
    hold what this needs; their records come back alone.
    """
    curves: dict[tuple[str, ...], list[CellRecord]] = {}
    for record in records:
        curves.setdefault(_curve(record), []).append(record)
    better = {key for key, of_curve in curves.items() if _probe_is_better(of_curve)}
    found = []
    for record in records:
        found.append(record)
        if _curve(record) in better:
            found.append(_of_probe(record))
    return found


def _curve(record: CellRecord) -> tuple[str, ...]:
    cell = record["cell"]
    return cell["victim"], cell["defence"], cell["attack"], cell["answers"]


def _probe_is_better(curve: Sequence[CellRecord]) -> bool:
    if not all(detail_of(name) in record["details"] for record in curve for name in PROBED if _has(record, name)):
        return False
    largest = max(record["cell"]["budget"] for record in curve)
    last = [record for record in curve if record["cell"]["budget"] == largest]
    names = [name for name in _RATED if all(_has(record, name) for record in last)]
    return any(
        fmean(record["details"][detail_of(name)] for record in last)
        > fmean(float(record["metrics"][name] or 0.0) for record in last)
        for name in names
    )


def _has(record: CellRecord, metric: str) -> bool:
    return record["metrics"].get(metric) is not None


def _of_probe(record: CellRecord) -> CellRecord:
    """The record of a cell's probe, as if it were a thief."""
    attack = str(read_attack(record["cell"]["attack"]).with_parameters(_THIEF))
    metrics = {name: value for name, value in record["metrics"].items() if name in _OF_VICTIM}
    names = [name for name in PROBED if _has(record, name)]
    metrics |= {name: record["details"][detail_of(name)] for name in names}
    for name in record["metrics"]:
        quotient = METRICS[name].quotient_of if name in METRICS else None
        above, below = (metrics.get(part) for part in quotient or ("", ""))
        if above is not None and below:
            metrics[name] = above / below
    samples = record["samples"]
    kept = {SAMPLES[name]: samples[SAMPLES[name]] for name in _OF_VICTIM if SAMPLES.get(name) in samples}
    kept |= {SAMPLES[name]: samples[sample_of(SAMPLES[name])] for name in names}
    cell = {**record["cell"], "attack": attack}
    return {**record, "cell": cell, "metrics": metrics, "samples": kept, "details": {}, "curves": {}}  # type: ignore[typeddict-item]
