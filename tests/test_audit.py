"""Import paths that documents once named still work, and say what to write instead."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

MOVED = [
    ("evaluation", "ExtractionEvaluation", "art_divqat.evaluation"),
    ("results", "read_results", "art_divqat.results.build"),
    ("flags", "compute_flags", "art_divqat.results.flags"),
    ("api", "audit_model", "art_divqat.api"),
    ("config", "EvaluateConfig", "art_divqat.plan.config"),
]


@pytest.mark.parametrize(("old", "name", "new"), MOVED)
def test_a_former_path_gives_the_same_object_and_warns(old: str, name: str, new: str) -> None:
    module = importlib.import_module(f"art_divqat.audit.{old}")
    with pytest.warns(DeprecationWarning, match=rf"import {name} from {new}\.$") as warned:
        found = getattr(module, name)
    assert found is getattr(importlib.import_module(new), name)
    assert warned[0].filename == __file__
    with pytest.raises(AttributeError):
        module.no_such_name  # noqa: B018


def test_the_statement_works_and_the_package_itself_does_not_use_it() -> None:
    code = "from art_divqat.audit.config import EvaluateConfig; import art_divqat.audit.api as a; print(a.audit_model)"
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert "function audit_model" in done.stdout
    assert done.stderr.count("DeprecationWarning") == 2
    quiet = "import art_divqat.api, art_divqat.cli.app"
    subprocess.run([sys.executable, "-W", "error::DeprecationWarning:art_divqat", "-c", quiet], check=True)
