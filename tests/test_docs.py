"""The Python blocks of the README and of every page in docs/ run, in order, in one namespace for each page."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support.plugins import EXAMPLE, copy_distribution, installed

from art_divqat.attacks.extraction.registry import ATTACKS
from art_divqat.attacks.recovery.registry import RECOVERIES
from art_divqat.data.pools import POOLS
from art_divqat.data.sources import DATASETS
from art_divqat.defences.registry import DEFENCES
from art_divqat.models.registry import MODELS
from art_divqat.victims.registry import VICTIMS

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = sorted(
    page for page in [DOCS.parent / "README.md", *DOCS.glob("*.md")] if BLOCK.search(page.read_text(encoding="utf-8"))
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    # what a page calls `run` is the run folder of a committed study
    shutil.copytree(DOCS.parent / "evaluations" / "studies" / "robust-extraction" / "digits", tmp_path / "run")
    # the package of `add-your-own.md`, whether it is installed or not
    (site := tmp_path / "site").mkdir()
    copy_distribution(EXAMPLE, site)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    namespace: dict[str, object] = {"__name__": "docs"}
    try:
        with installed(site, ATTACKS, RECOVERIES, DEFENCES, VICTIMS, MODELS, DATASETS, POOLS):
            for block in BLOCK.finditer(text):
                # Blank lines in front make a traceback name the line of the page.
                before = text[: block.start(1)].count("\n")
                exec(compile("\n" * before + block.group(1), str(page), "exec"), namespace)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
    if page.name == "audit-your-own-model.md":
        assert re.match(r"Rating: vulnerable \(agreement 9\d\.\d % at 200 queries\)\.", capsys.readouterr().out)
    if page.name == "reading-a-report.md":
        assert capsys.readouterr().out.startswith("Stealing the robust victim")
        assert {p.name for p in (tmp_path / "elsewhere").iterdir()} == {"results.json", "report.md", "report.html"}
        assert (tmp_path / "report.sarif").read_text("utf-8").startswith("{")


def test_there_is_something_to_run() -> None:
    assert {"defend-a-classifier.md", "reading-a-report.md"} <= {page.name for page in PAGES}
