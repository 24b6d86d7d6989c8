"""Context sections of a report: threat model, flags, gate, standards, limits, how to repeat the run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from art_divqat.attacks.extraction.registry import ATTACKS, read_attack
from art_divqat.data.pools import generated_pools
from art_divqat.report.blocks import Block, Bullets, Code, Notice, Section, Table, TableCell, Text
from art_divqat.report.rating import Thresholds, rate_row
from art_divqat.report.results_view import ResultsView
from art_divqat.report.seeds import seeds_added
from art_divqat.report.text import NONE, clean, counted, dataset_name, percent
from art_divqat.results.data_notes import beginnings, classes_note, data_notes, shrinking
from art_divqat.results.probes import probed
from art_divqat.results.schema import Results
from art_divqat.victims.registry import is_control

_UNSAID = "not recorded"


def _value(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key)
    if key == "dataset" and isinstance(value, str):
        value = dataset_name(value)
    if value is None or value == "" or value == []:
        return _UNSAID
    if isinstance(value, list | tuple):
        return ", ".join(f"{v:,}" if isinstance(v, int) else clean(str(v)) for v in value)
    if isinstance(value, Mapping):
        words = {True: "yes", False: "no"}
        texts = {k: words[v] if isinstance(v, bool) else clean(str(v)) for k, v in value.items()}
        return ", ".join(f"{clean(str(k)).replace('_', ' ')}: {v}" for k, v in texts.items())
    return clean(str(value))


def model_text(results: Results) -> str:
    """What the victims are: an architecture, or what is known of a model from outside."""
    config, model = results.config, results.data.get("model")
    if config.get("external") is None:
        return _value(config, "model")
    if not isinstance(model, Mapping):
        return "a model from outside"
    where = {"file": "a file", "endpoint": "an endpoint", "object": "an object of Python's"}.get(str(model.get("kind")))
    what = clean(str(model.get("architecture") or "")) if model.get("kind") != "endpoint" else ""
    return f"{where or 'a model from outside'}{f' ({what})' if what else ''}"


def _answer_rows(results: Results) -> list[tuple[str, str]]:
    model = results.data.get("model")
    if not isinstance(model, Mapping) or "outputs" not in model:
        return []
    kinds = [f"{model.get('classes')} {model['outputs']}", *(model.get("answers") or ())]
    note = classes_note(results.data)
    return [("It answers", clean("; ".join(map(str, kinds)))), *([("Its classes", note)] if note else [])]


def _weights_rows(results: Results) -> list[tuple[str, str]]:
    own = "The control" if results.config.get("external") is not None else "Victims"
    names = {"victim": own, "thief": "Thieves"}
    return [(f"{names[of]} began from", clean(text)) for of, text in beginnings(results.data.get("weights"))]


def _pools(config: Mapping[str, Any]) -> str:
    """Where the images come from that are asked: the query pool, and what attacks have beside it."""
    drawn = generated_pools()
    beside: dict[str, list[str]] = {}
    for text in config.get("attacks") or ():
        spec = read_attack(str(text))
        entry = ATTACKS.find(spec.name)
        names = () if entry is None else entry.other_pools(spec.own)
        if names:
            all_drawn = set(drawn) <= set(names)
            left = [name for name in names if not all_drawn or name not in drawn]
            pools = ", ".join([*(["pictures that a program draws"] if all_drawn else []), *left])
            beside.setdefault(pools, []).append(clean(str(text)))
    more = "; ".join(f"{', '.join(attacks)} also from {clean(pools)}" for pools, attacks in beside.items())
    return _value(config, "query_pool") + (f" ({more})" if more else "")


def threat_section(view: ResultsView) -> Section:
    """What was attacked and what the attacker knows, has and pays."""
    config = view.results.config
    budgets = ", ".join(f"{b:,}" for b in sorted({row.budget for row in view.summary if row.budget}))
    seen = ", ".join(clean(a) for a in dict.fromkeys(row.answers for row in view.summary if row.budget))
    spent = sum(cell.queries for cell in view.cells)
    has = f"Images from {_pools(config)} and a network to train ({_value(config, 'thief_model')})."
    if smaller := shrinking(view.results.data.get("thief_images")):
        has += f" Shrunk images: {clean('; '.join(smaller))}; the victim is asked about whole ones."
    if own := config.get("attacker_images"):
        labels = "with" if config.get("attacker_labels", True) else "without"
        has = f"{counted(own, 'image')} of the victim's own kind, {labels} their true labels. {has}"
    what = model_text(view.results)
    victims = [name for name in config.get("victims") or () if not is_control(str(name), config)]
    notes = data_notes(view.results.data)
    rows = [
        ("The model", f"{what} on {_value(config, 'dataset')}; victims: {_value({'victims': victims}, 'victims')}"),
        *_answer_rows(view.results),
        *_weights_rows(view.results),
        *([("What was done to the images", clean("; ".join(notes)))] if notes else []),
        ("How it was reached", "As a black box: images in, answers out, every query counted and capped."),
        ("The attacker knows", "The size and range of the images, and the classes; no weights, no training data."),
        ("The attacker has", has),
        ("The attacker sees", f"Answers: {seen or _UNSAID}. Soft: all probabilities; hard: the label alone."),
        ("The attacker pays", f"{budgets or 0} queries a thief; one query is one image. "
         f"The whole audit used {counted(spent, 'query')}."),
        ("Attacks", _value(config, "attacks")),
        ("Defences", _value(config, "defences")),
    ]  # fmt: skip
    table = Table(("", ""), [(TableCell(name), TableCell(text)) for name, text in rows])
    return Section("threat-model", "What was attacked, and by whom", [table])


def flags_section(view: ResultsView) -> Section:
    """What limits the trust in this evaluation."""
    flags = view.results.flags
    if not flags:
        return Section("flags", "Warnings about this audit", [Text("No warning was raised.")])
    blocks: list[Block] = [
        Text(f"{counted(len(flags), 'warning')} about the evaluation itself, computed from its results.")
    ]
    blocks += [
        Notice(
            clean(flag.name).replace("-", " ").replace("_", " ").capitalize(),
            "warn",
            [
                ("Raised because", clean(flag.raised_because)),
                ("What it means", clean(flag.meaning)),
                ("What to do", clean(flag.remedy)),
            ],
        )
        for flag in flags
    ]
    return Section("flags", "Warnings about this audit", blocks)


def gate_section(view: ResultsView) -> Section | None:
    """The conditions that a build was to fail on."""
    gate = view.results.gate
    if not gate.conditions:
        return None
    rows = [
        (
            TableCell(clean(c.condition)),
            TableCell("failed" if c.failed else "passed", tone="bad" if c.failed else "good"),
            TableCell(_first_offenders(c.where) if c.where else NONE),
        )
        for c in gate.conditions
    ]
    outcome = "The gate is passed: no condition was met." if gate.passed else "The gate has failed."
    return Section("gate", "Gate", [Text(outcome), Table(("Fails on", "Outcome", "Where"), rows)])


def _first_offenders(offenders: list[str], most: int = 5) -> str:
    more = f" and {len(offenders) - most:,} more" if len(offenders) > most else ""
    return "; ".join(clean(w) for w in offenders[:most]) + more


def standards_section(view: ResultsView, thresholds: Thresholds) -> Section:
    """What the audit says in the terms of public standards."""
    row = view.most_stolen()
    best = row.metrics["agreement"] if row else None
    attacks = list(dict.fromkeys(probed(r.attack) for r in view.summary))
    ran = ", ".join(clean(a) for a in attacks) or "none"
    named = [a for a in ("knockoff", "copycat") if any(x.partition(":")[0] == a for x in attacks)]
    level = "Not measured"
    if row and best:
        level = f"Highest agreement {percent(best.mean)}: {rate_row(view, row, thresholds).name.lower()}"
    above = f"vulnerable above {percent(thresholds.vulnerable, 0)}, warning above {percent(thresholds.warning, 0)}"
    rows = [
        ("MITRE ATLAS", "AML.T0024.002 Extract AI Model", f"The technique was carried out. Attacks: {ran}."),
        ("OWASP ML Security Top 10", "ML05:2023 Model Theft", "The risk was measured by stealing the model."),
        ("OWASP AI Testing Guide", "AITG-APP-09 Model Extraction",
         f"{level} ({above})."),
        ("OWASP AISVS 1.0", "C11.3",
         f"Of the attacks it names, KnockoffNets and CopycatCNN, this audit ran {' and '.join(named) or 'neither'}."),
        ("NIST AI 100-2", "NISTAML.031 Model Extraction", "The attack class that this audit covers."),
    ]  # fmt: skip
    table = Table(
        ("Standard", "Item", "In this audit"),
        [tuple(TableCell(text) for text in line) for line in rows],
        note="A mapping for the reader's orientation; it is no certificate of conformity.",
    )
    return Section("standards", "Standards", [table])


def limits_section(view: ResultsView) -> Section:
    """What this audit does not say."""
    results, config = view.results, view.results.config
    evasion = config.get("evasion")
    seeds = max((row.n_seeds for row in view.summary), default=0)
    budgets = [row.budget for row in view.summary]
    items = [
        "It shows what these attackers reached, not what the best one could: the true risk may be higher.",
        f"Attackers had at most {counted(max(budgets, default=0), 'query')} and images from "
        f"{_pools(config)}; more queries, or images nearer to the training data, may steal more.",
        f"Agreement and accuracy are on test images of {_value(config, 'dataset')}; on other images they may differ.",
        f"Intervals cover {counted(seeds, 'seed')} and the test images. They say nothing of other networks, data sets "
        "or training recipes. Each is about one number alone; only verdicts are corrected for how many there are.",
    ]
    if view.is_audit:
        items.append(
            "Whether the model was fitted on the test images, or on those of the attacker's pool, cannot be known "
            "here. Where it was, agreement and accuracy are those of images that it has seen."
        )
    if added := seeds_added(results):
        items.insert(0, added)
    if any("victim_robust_accuracy" in row.metrics for row in results.summary):
        how = f" ({_value(config, 'evasion')})" if isinstance(evasion, Mapping) else ""
        items.append(
            f"Robust accuracy is an upper bound: a stronger attack than the one used{how} may leave less of it."
        )
    if results.planned > len(results.cells):
        items.append(f"It is not complete: {len(results.cells):,} of {counted(results.planned, 'cell')} had finished.")
    items.append(
        "What may be stolen is judged by behaviour on images. Stolen weights, training data recovered from answers, "
        "and access past the prediction interface are other risks."
    )
    return Section("limits", "Limits of this audit", [Bullets(items)])


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _flat(value[key], f"{prefix}{' ' if prefix else ''}{clean(str(key))}")
    elif isinstance(value, list | tuple):
        yield prefix, ", ".join(clean(str(v)) for v in value[:20]) + (f", … ({len(value)})" if len(value) > 20 else "")
    else:
        yield prefix, NONE if value is None else clean(str(value))


def _again(view: ResultsView) -> list[Block]:
    """The command that runs it again, or what stands in for it where the model was an object of Python's."""
    model = view.results.data.get("model")
    kind = model.get("kind") if isinstance(model, Mapping) else None
    whole = "The run folder holds the configuration whole; the same seeds give the same numbers, timings aside"
    if view.results.config.get("external") is None:
        return [Text(f"{whole}:"), Code("art-divqat evaluate --config config.yaml")]
    if kind == "object":
        return [
            Text(f"{whole}. The model was an object of Python's, which no file holds; with that object, and this "
                 "folder as RUN:"),
            Code("art_divqat.audit_model(model, config='RUN/config.yaml')"),
        ]  # fmt: skip
    return [
        Text(f"{whole}. From the folder in which it was run, with this one as $RUN, and with --trust-code where the "
             "model is code:"),
        Code("art-divqat audit --config $RUN/config.yaml"),
    ]  # fmt: skip


def repeat_section(view: ResultsView) -> Section:
    """Everything that is needed to run it again."""
    results = view.results
    seeds = sorted({cell.seed for cell in results.cells})
    facts = [
        ("Started", clean(results.started)),
        ("Cells", f"{len(results.cells):,} of {results.planned:,} finished"),
        ("Seeds", ", ".join(map(str, seeds[:20])) + (", …" if len(seeds) > 20 else "") or NONE),
        *((f"Tool: {name}", text) for name, text in _flat(results.tool)),
        *((f"Environment: {name}", text) for name, text in _flat(results.environment)),
        *((f"Data: {name}", text) for name, text in _flat(results.data)),
    ]
    config = json.dumps(results.config, indent=2, sort_keys=True, ensure_ascii=False, default=str)
    return Section(
        "repeat",
        "How to repeat it",
        [
            *_again(view),
            Table(("", ""), [(TableCell(name), TableCell(text)) for name, text in facts]),
            Text("The configuration:"),
            Code("\n".join(clean(line) for line in config.splitlines())),
        ],
    )
