"""A real package with one plug-in of each kind, installed: named, run in worker processes, kept, reported, refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from support.plugins import EXAMPLE, copy_distribution, installed, write_distribution

from art_divqat.attacks.extraction.registry import ATTACKS
from art_divqat.attacks.recovery.registry import RECOVERIES
from art_divqat.data.pools import POOLS
from art_divqat.data.sources import DATASETS
from art_divqat.defences.registry import DEFENCES
from art_divqat.models.registry import MODELS
from art_divqat.registry import GROUPS
from art_divqat.report import render
from art_divqat.results.build import read_results
from art_divqat.results.run_diff import compare_runs
from art_divqat.testing import check
from art_divqat.victims.registry import VICTIMS

NAME = "art-divqat-example"
NAMES = {
    "attacks": "contrast-first",
    "recoveries": "sharpen",
    "defences": "mix-uniform",
    "victims": "smoothed-labels",
    "models": "one-hidden-layer",
    "datasets": "inverted-digits",
    "pools": "gradients",
}
TABLES = (ATTACKS, RECOVERIES, DEFENCES, VICTIMS, MODELS, DATASETS, POOLS)
OPTIONS = ["--dataset", "Inverted_Digits", "--model", "One_Hidden_Layer", "--query-pool", "Gradients"]


@pytest.fixture(scope="module", autouse=True)
def version() -> str:
    """The installed version; without it these tests skip, but in CI, which installs it, they fail."""
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        why = f"{NAME} is not installed: pip install -e tests/plugin_package, as the README's test command does"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)


def command(*arguments: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with one more folder in front on its path."""
    before = [str(path)] if path is not None else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*before, os.environ.get("PYTHONPATH", "")])}
    environment["XDG_CACHE_HOME"] = str(cwd / "cache")
    return subprocess.run(
        [sys.executable, "-m", "art_divqat", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip


def run_options(place: Path) -> list[str]:
    recipe = {"epochs": 1}
    values = {"victim_recipe": recipe, "thief_recipe": recipe, "evasion": {"images": 0}}
    (place / "config.json").write_text(json.dumps(values))
    return [
        *OPTIONS,
        "--config",
        "config.json",
        "--limit",
        "100",
        "--quiet",
        "--victim",
        "Smoothed_Labels:smoothing=0.20",
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, version: str) -> Path:
    """Where `run` is a run with one of each, made in two worker processes."""
    place = tmp_path_factory.mktemp("place")
    arguments = ["evaluate", *run_options(place), "--jobs", "2", "--seeds", "1", "--budget", "30", "--answers", "soft"]
    arguments += ["--attack", "Contrast_First:order=highest,recovery=Sharpen,temperature=0.5"]
    done = command(*arguments, "--defence", "Mix_Uniform: share=0.50", "--output", "run", cwd=place)
    assert done.returncode == 0, done.stderr
    return place


def test_the_package_has_one_of_each_kind() -> None:
    assert list(NAMES) == list(GROUPS) == [table.group for table in TABLES]
    for table in TABLES:
        assert table.origin(NAMES[table.group]) == f"{NAME} {metadata.version(NAME)}"


@pytest.mark.parametrize("kind", GROUPS)
def test_it_is_listed_without_torch(kind: str) -> None:
    code = (
        "import sys\nfrom art_divqat.cli import main\n"
        f"sys.argv = ['art-divqat', 'list', '{kind}']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint(sorted({'torch', 'art'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    *lines, heavy = done.stdout.splitlines()
    table = next(table for table in TABLES if table.group == kind)
    listed = {line.split(None, 1)[0]: line.split(None, 1)[1] for line in lines}
    assert listed[NAMES[kind]] == table[NAMES[kind]].summary
    assert heavy == "[]"


@pytest.mark.parametrize(("kind", "name"), NAMES.items())
def test_it_keeps_its_contract(kind: str, name: str) -> None:
    check(name)
    check(name.replace("-", "_").upper(), kind)


@pytest.mark.slow
def test_a_run_has_the_canonical_names_and_the_version(place: Path, version: str) -> None:
    results = json.loads((place / "run" / "results.json").read_text(encoding="utf-8"))
    assert results["environment"]["packages"][NAME] == version
    config = results["config"]
    assert (config["dataset"], config["model"], config["thief_model"], config["query_pool"]) == (
        NAMES["datasets"], NAMES["models"], NAMES["models"], NAMES["pools"],
    )  # fmt: skip
    header, *lines = map(json.loads, (place / "run" / "journal.jsonl").read_text(encoding="utf-8").splitlines())
    assert NAME in json.dumps(header)
    cells = [line["cell"] for line in lines if "cell" in line]
    for written in (cells, results["cells"]):
        assert {cell["victim"] for cell in written} == {"standard", "smoothed-labels:smoothing=0.2"}
        assert {cell["defence"] for cell in written} == {"mix-uniform:share=0.5"}
        assert {cell["attack"] for cell in written} == {"contrast-first:order=highest,recovery=sharpen,temperature=0.5"}
    for cell in results["cells"]:
        assert cell["metrics"]["l1_distortion"] > 0
        assert cell["details"]["mean_contrast"] > 0
        assert cell["details"]["adaptive_attacker"] == 1


@pytest.mark.slow
def test_another_version_is_not_served_the_victim_of_this_one(place: Path, tmp_path: Path, version: str) -> None:
    copy_distribution(EXAMPLE, tmp_path, version="99.0")
    shutil.copytree(place / "cache", tmp_path / "cache")

    def victims() -> set[str]:
        return {path.parent.name for path in (tmp_path / "cache").rglob("victim.json")}

    made = victims()
    assert made
    arguments = ["train", *run_options(tmp_path)]
    for name, path in (("same", None), ("other", tmp_path), ("again", tmp_path)):
        done = command(*arguments, "--output", name, cwd=tmp_path, path=path)
        assert done.returncode == 0, done.stderr
        assert len(victims() - made) == (0 if name == "same" else 1), name
    identities = [json.loads((path / "victim.json").read_text()) for path in (tmp_path / "cache").rglob("*/")
                  if (path / "victim.json").exists()]  # fmt: skip
    origins = {identity["plugins"].get("victim smoothed-labels") for identity in identities}
    assert origins == {None, f"{NAME} {version}", f"{NAME} 99.0"}


@pytest.mark.slow
def test_a_run_is_reported_and_compared_where_the_package_is_not_installed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("art_divqat.registry.metadata.entry_points", lambda **_: ())
    with installed(tmp_path, *TABLES):
        assert not any(NAMES[table.group] in table for table in TABLES)
        results = read_results(place / "run")
        assert render(results, "md") == (place / "run" / "report.md").read_text(encoding="utf-8")
        for form in ("html", "json", "sarif", "junit", "csv"):
            assert NAMES["victims"] in render(results, form)
        assert compare_runs(place / "run", place / "run").changes


RIVAL = "from art_divqat.victims.registry import VictimEntry\nVICTIM = VictimEntry('a rival', 'rival:train')\n"


@pytest.mark.parametrize("name", ["Smoothed_Labels", "robust_fast"])
def test_two_of_one_name_are_one_line(tmp_path: Path, version: str, name: str) -> None:
    site = tmp_path / "site"
    site.mkdir()
    write_distribution(site, "rival", RIVAL, {"victims": {name: "VICTIM"}})
    for arguments in (["list", "victims"], ["evaluate", "--victim", "smoothed-labels"]):
        done = command(*arguments, cwd=tmp_path, path=site)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert "rival 1.2" in done.stderr
        assert (f"{NAME} {version}" if name == "Smoothed_Labels" else "art-divqat itself") in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site"]


def test_a_plug_in_that_fails_is_one_line_where_it_is_asked_for(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    code = "print('imported')\nraise RuntimeError('out of\\nluck')\n"
    write_distribution(site, "broken", code, {"attacks": {"broken": "ATTACK"}})
    why = "The attack 'broken' of broken 1.2 cannot be loaded: RuntimeError: out of"
    done = command("evaluate", "--attack", "broken", "--output", "run", cwd=tmp_path, path=site)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert why in done.stderr
    done = command("list", "attacks", cwd=tmp_path, path=site)
    assert done.returncode == 0
    assert why in next(line for line in done.stdout.splitlines() if line.startswith("broken "))
    # a plan with built-in names, or a page of help, imports no plug-in
    for arguments in (["evaluate", "--help"], ["evaluate", "--dry-run"]):
        done = command(*arguments, cwd=tmp_path, path=site)
        assert done.returncode == 0, done.stderr
        assert "imported" not in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["site"]


def test_the_page_shows_the_package() -> None:
    page = (EXAMPLE.parents[1] / "docs" / "add-your-own.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:python|toml)\n# (\S+\.(?:py|toml))\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    shown: dict[str, str] = {}
    for file, text in blocks:
        # a dead example is worse than none: what the page shows is what these tests install and run
        for part in text.strip("\n").split("\n\n\n"):
            assert part in (EXAMPLE / file).read_text(encoding="utf-8"), f"{file} has not:\n{part}"
        shown[file] = shown.get(file, "") + text
    for file, text in shown.items():
        source = (EXAMPLE / file).read_text(encoding="utf-8")
        missing = [line for line in source.splitlines() if line.strip() and line not in text]
        assert missing == [line for line in missing if line.startswith('"""')], (
            f"the page leaves out of {file}: {missing}"
        )
