"""The files around the package say what is so: workflows, the GitHub Action, the citation, hooks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from art_divqat import __version__
from art_divqat.cli.app import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
YAML = [
    ROOT / "action.yml",
    ROOT / "CITATION.cff",
    ROOT / ".pre-commit-config.yaml",
    *sorted((ROOT / ".github").rglob("*.yml")),
]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# inputs of the action that are no options of `art-divqat audit`
NOT_OPTIONS = {"target", "arguments", "python-version", "extras", "upload-sarif"}


class Strict(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{sorted(map(str, keys))} at {node.start_mark}"
        return super().construct_mapping(node, deep)


def parsed(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Strict)


def audit_options() -> set[str]:
    command = typer.main.get_command(app).get_command(None, "audit")  # type: ignore[attr-defined]
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_yaml_parses(path: Path) -> None:
    assert isinstance(parsed(path), dict)


def test_a_key_that_stands_twice_is_found(tmp_path: Path) -> None:
    (tmp_path / "twice.yml").write_text("a: 1\nb: {c: 1, c: 2}\n")
    with pytest.raises(AssertionError, match="'c', 'c'"):
        parsed(tmp_path / "twice.yml")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_ask_for_no_more_than_they_need(path: Path) -> None:
    workflow = parsed(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "runs-on" in job or "uses" in job
        # text of a pull request that stands in a script runs there
        for step in job.get("steps", []):
            assert not re.search(r"\$\{\{\s*(github\.(event|head_ref)|inputs)", step.get("run", "")), step


def test_every_supported_python_is_tested() -> None:
    matrix = parsed(ROOT / ".github/workflows/tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)]
    assert matrix["python"] == named
    assert matrix["resolution"] == ["lowest-direct", "highest"]


def test_extras_that_are_installed_somewhere_exist() -> None:
    extras = set(PROJECT["optional-dependencies"])
    texts = {path: path.read_text(encoding="utf-8") for path in [*YAML, ROOT / "CONTRIBUTING.md", ROOT / "Dockerfile"]}
    named = {
        extra.strip()
        for text in texts.values()
        for group in re.findall(r"(?:-e '?\.|art-divqat)\[([\w, -]+)\]|--extra (\S+)", text)
        for extra in ",".join(group).split(",")
        if extra.strip()
    }
    assert {"onnx", "remote", "tests", "dev"} <= named <= extras


def test_the_citation_is_of_this_version_and_the_three_papers() -> None:
    citation = parsed(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["license"]
    papers = {reference["identifiers"][0]["value"]: reference for reference in citation["references"]}
    assert set(papers) == {"arXiv:2207.10561", "arXiv:2309.01838", "arXiv:2512.23948"}
    for number, reference in papers.items():
        assert reference["authors"][0] == {"given-names": "Kacem", "family-names": "Khaled"}
        assert reference["url"].endswith(number.removeprefix("arXiv:"))


def test_hooks_run_tools_of_the_dev_extra() -> None:
    hooks = parsed(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    tools = {re.match(r"[\w-]+", requirement).group() for requirement in PROJECT["optional-dependencies"]["dev"]}  # type: ignore[union-attr]
    assert {hook["entry"].split()[0] for hook in hooks} <= tools


def test_ci_runs_the_wheel_and_the_site() -> None:
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    for name in ("wheel", "docs"):
        assert f".ci/{name}" in run
        assert os.access(ROOT / ".ci" / name, os.X_OK)


def test_inputs_of_the_action_are_options_of_audit() -> None:
    action = parsed(ROOT / "action.yml")
    script = next(step for step in action["runs"]["steps"] if step.get("id") == "audit")
    options = audit_options()
    named = set(action["inputs"]) - NOT_OPTIONS
    assert {f"--{name}" for name in named} <= options
    # each input reaches the script, and what the script says is an option
    handed = {re.search(r"inputs\.([\w-]+)", value).group(1) for value in script["env"].values()}  # type: ignore[union-attr]
    assert handed == named | {"target", "arguments"}
    assert set(re.findall(r"option (--[\w-]+)", script["run"])) == {f"--{name}" for name in named}
    for step in action["runs"]["steps"]:
        assert "${{" not in step.get("run", ""), step["name"]


def audited(folder: Path, exit_code: int = 0, **given: str) -> tuple[list[list[str]], dict[str, str]]:
    """What the action's step calls, with a stand-in for `art-divqat`, and the outputs that it writes."""
    action = parsed(ROOT / "action.yml")
    step = next(step for step in action["runs"]["steps"] if step.get("id") == "audit")
    inputs = {name: what["default"] for name, what in action["inputs"].items()} | given
    tools = folder / "tools"
    tools.mkdir()
    stand_in = tools / "art-divqat"
    stand_in.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" --- >> calls\n'
        'case "$1:$5" in\n'
        'audit:*) mkdir -p "$OUTPUT"; : > "$OUTPUT/journal.jsonl"; exit ' + str(exit_code) + ";;\n"
        'report:*) [ "$3" = md ] && echo "# a report" || { : > "$5"; exit ' + str(exit_code) + "; };;\nesac\n"
    )
    stand_in.chmod(0o755)
    env = {
        **{name: inputs[re.search(r"inputs\.([\w-]+)", text).group(1)] for name, text in step["env"].items()},  # type: ignore[union-attr]
        "PATH": f"{tools}:{os.environ['PATH']}",
        "GITHUB_OUTPUT": str(folder / "outputs"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    subprocess.run(command, cwd=folder, env=env, check=True)
    outputs = dict(line.split("=") for line in (folder / "outputs").read_text().split())
    calls = (folder / "calls").read_text().split("---\n")[:-1]
    return [call.splitlines() for call in calls], outputs


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="the step is a bash script")


@needs_bash
def test_the_action_hands_its_inputs_on(tmp_path: Path) -> None:
    hostile = "m $(touch hacked).onnx"
    given = {"target": hostile, "data": "npz:a b.npz", "fail-on": "agreement>0.9\nthief_accuracy>0.5\n"}
    calls, outputs = audited(tmp_path, exit_code=1, arguments="--answers\nsoft", **given)
    gate = ["--fail-on", "agreement>0.9", "--fail-on", "thief_accuracy>0.5"]
    rest = ["--data", "npz:a b.npz", "--output", "art-divqat-run", "--answers", "soft", "--", hostile]
    assert calls[0] == ["audit", "--quiet", *gate, *rest]
    assert calls[2][:3] == ["report", "--format", "sarif"]
    assert calls[2][5:9] == gate
    # the verdict is kept for the last step: report and SARIF come first
    assert outputs == {"exit-code": "1", "sarif": "true"}
    assert (tmp_path / "summary").read_text() == "# a report\n"
    assert not (tmp_path / "hacked").exists()
    for call in calls:
        assert {argument for argument in call if argument.startswith("--")} - {"--", "--format"} <= audit_options()


@needs_bash
def test_the_action_without_a_target_leaves_it_to_the_configuration(tmp_path: Path) -> None:
    calls, outputs = audited(tmp_path, config="audit.yaml", output="elsewhere")
    assert calls[0] == ["audit", "--quiet", "--config", "audit.yaml", "--output", "elsewhere"]
    assert outputs == {"exit-code": "0", "sarif": "true"}
