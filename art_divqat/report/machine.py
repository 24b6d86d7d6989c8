"""Machine-readable reports: SARIF 2.1.0, JUnit XML, and CSV of the cells."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any
from xml.etree import ElementTree

from art_divqat.report.data import csv_text
from art_divqat.report.rating import INCONCLUSIVE, Rating, Thresholds, rate_row
from art_divqat.report.results_view import ResultsView
from art_divqat.report.tables import range_text, value_text
from art_divqat.report.text import attacker, clean
from art_divqat.results.schema import Results, SummaryRow

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_HOME = "https://github.com/art-divqat/art-divqat"
_COORDINATES = ("dataset", "victim", "defence", "attack", "answers", "budget", "seed", "queries", "seconds")
_TAGS = ["security", "AML.T0024.002", "ML05:2023", "AITG-APP-09", "NISTAML.031"]
_LEVELS = {"Vulnerable": "error", "Warning": "warning", "Desired": "none", INCONCLUSIVE: "none", "Not measured": "none"}
# of a result that is none
_KINDS = {"Desired": "pass", INCONCLUSIVE: "open"}
_STEALABLE = "model-extraction"
_GATE = "gate"


def render_sarif(results: Results, thresholds: Thresholds | None = None) -> str:
    """SARIF 2.1.0: a result for each victim and defence by its rating, each flag, and each failed gate condition."""
    entries = [*_sarif_ratings(results, thresholds or Thresholds()), *_sarif_flags(results), *_sarif_gate(results)]
    rules = list(dict.fromkeys(result["ruleId"] for result in entries))
    for result in entries:
        result["ruleIndex"] = rules.index(result["ruleId"])
    driver = {
        "name": "art-divqat",
        "informationUri": _HOME,
        "rules": [_sarif_rule(name, results) for name in rules],
    }
    if version := clean(results.tool.get("version", "")):
        driver["version"] = version
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": len(results.cells) >= results.planned}],
        "results": entries,
    }
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _message(text: str) -> dict[str, str]:
    # in a SARIF message [text](1) is a link and {0} a placeholder, so both are escaped
    return {"text": re.sub(r"([\[\]\\])", r"\\\1", clean(text)).replace("{", "{{").replace("}", "}}")}


def _sarif_result(rule: str, level: str, text: str, group_label: str, kind: str = "fail") -> dict[str, Any]:
    fingerprint = hashlib.sha256("\0".join((rule, group_label)).encode("utf-8", "backslashreplace")).hexdigest()
    return {
        "ruleId": rule,
        "kind": kind,
        "level": level,
        "message": _message(text),
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": "results.json"}, "region": {"startLine": 1}},
                "logicalLocations": [{"fullyQualifiedName": clean(group_label), "kind": "module"}],
            }
        ],
        "partialFingerprints": {"artDivqat/v1": fingerprint},
    }


def _sarif_ratings(results: Results, thresholds: Thresholds) -> list[dict[str, Any]]:
    entries = []
    for row, rating in _rated(ResultsView(results), thresholds):
        text = (
            f"{rating.name}: the best thief of {row.victim} (defence {row.defence}) agrees with it on {_numbers(row)}."
        )
        if rating.doubts:
            text += f" No rating, as {'; '.join(rating.doubts)}."
        group_label = f"{row.victim} / {row.defence}"
        kind = _KINDS.get(rating.name, "fail")
        entries.append(_sarif_result(_STEALABLE, _LEVELS[rating.name], text, group_label, kind))
    return entries


def _rated(view: ResultsView, thresholds: Thresholds) -> list[tuple[SummaryRow, Rating]]:
    best = [row for pair in view.pairs if (row := view.best(*pair, "agreement")) is not None]
    return [(row, rate_row(view, row, thresholds)) for row in best]


def _numbers(row: SummaryRow) -> str:
    agreement = row.metrics["agreement"]
    interval = range_text("agreement", agreement)
    bounds = interval if interval == "no interval" else f"95 % interval {interval}"
    how = f"{attacker(row.attack, row.answers)}, {row.budget:,} queries"
    return f"{value_text('agreement', agreement)} of test images ({bounds}; {how})"


def _sarif_flags(results: Results) -> list[dict[str, Any]]:
    return [
        _sarif_result(f"flag/{clean(flag.name)}", "warning", f"{flag.raised_because} {flag.meaning}", "evaluation")
        for flag in results.flags
    ]


def _sarif_gate(results: Results) -> list[dict[str, Any]]:
    return [
        _sarif_result(_GATE, "error", f"The gate failed on {c.condition}: {'; '.join(c.where[:10])}.", c.condition)
        for c in results.gate.conditions
        if c.failed
    ]


def _sarif_rule(name: str, results: Results) -> dict[str, Any]:
    if name == _STEALABLE:
        short, text = "The model can be copied by querying it", "Limit queries, give out labels alone, add a defence."
    elif name == _GATE:
        short, text = "A condition of the gate is true", "Make the model harder to steal, or change the condition."
    else:
        flag = next(f for f in results.flags if f"flag/{clean(f.name)}" == name)
        short, text = flag.meaning, flag.remedy
    rule: dict[str, Any] = {"id": name, "shortDescription": _message(short), "help": _message(text)}
    if not name.startswith("flag/"):
        rule["properties"] = {"tags": _TAGS}
    return rule


def render_junit(results: Results, thresholds: Thresholds | None = None) -> str:
    """JUnit XML: a test case for each gate condition, which alone can fail; ratings and flags stand beside them.

    A flag is a skipped case, since what it is about was not shown; a run that is not complete is an error.
    """
    root = ElementTree.Element("testsuites", name="art-divqat")
    gate = _suite(root, "gate")
    for condition in results.gate.conditions:
        case = _case(gate, "gate", condition.condition)
        if condition.failed:
            failure = ElementTree.SubElement(
                case, "failure", message=clean(f"{condition.condition} is true"), type="gate"
            )
            failure.text = "\n".join(map(clean, condition.where))
    complete = _case(gate, "gate", "every planned cell has finished")
    if len(results.cells) < results.planned:
        sentence = f"{len(results.cells)} of {results.planned} cells have finished"
        ElementTree.SubElement(complete, "error", message=sentence, type="incomplete")
    ratings = _suite(root, "ratings")
    for row, rating in _rated(ResultsView(results), thresholds or Thresholds()):
        case = _case(ratings, "ratings", f"{row.victim} / {row.defence}")
        ElementTree.SubElement(case, "system-out").text = clean(f"{rating.name}: agreement on {_numbers(row)}")
        if rating.doubts:
            ElementTree.SubElement(case, "skipped", message=clean("; ".join(rating.doubts)))
    flags = _suite(root, "flags")
    for flag in results.flags:
        case = _case(flags, "flags", flag.name)
        ElementTree.SubElement(case, "skipped", message=clean(f"{flag.raised_because} {flag.remedy}"))
    _count(root, sum(cell.seconds for cell in results.cells))
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _suite(root: ElementTree.Element, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(root, "testsuite", name=name)


def _case(suite: ElementTree.Element, group: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=f"art_divqat.{group}", name=clean(name))


def _count(root: ElementTree.Element, seconds: float) -> None:
    tags = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}
    for element in (root, *root.findall("testsuite")):
        for attribute, tag in tags.items():
            if element is not root or attribute != "skipped":
                element.set(attribute, str(len(list(element.iter(tag)))))
    root.set("time", f"{seconds:.3f}")


def render_csv(results: Results) -> str:
    """CSV of the cells, one line each: coordinates, then metrics, then details, both by name; empty where absent."""
    metrics = sorted({name for cell in results.cells for name in cell.metrics})
    details = sorted({name for cell in results.cells for name in cell.details})
    headings = [*_COORDINATES, *metrics, *(f"details.{name}" for name in details)]
    rows = (
        [
            *(getattr(cell, name) for name in _COORDINATES),
            *(cell.metrics.get(name) for name in metrics),
            *(cell.details.get(name) for name in details),
        ]
        for cell in results.cells
    )
    return csv_text(headings, rows)
