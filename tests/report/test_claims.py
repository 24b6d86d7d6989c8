"""The claims of the paper: about whichever victim was adversarially trained, whatever it is called."""

from __future__ import annotations

from pathlib import Path

from support.builders import make_results, robust_rates
from support.plugins import installed, write_distribution

from art_divqat.report import render
from art_divqat.report.claims import is_robust
from art_divqat.results.flags import compute_flags
from art_divqat.results.schema import Results
from art_divqat.victims.registry import VICTIMS

CODE = """
from art_divqat.victims.registry import VictimEntry

TOUGH = VictimEntry("adversarially trained", "nowhere:train", baseline="standard", adversarial=True)
SHAM = VictimEntry("robust by its name alone", "nowhere:train", baseline="standard")
"""
CLAIMS = "Less than 0.75 of the queries"


def results_of(victim: str) -> Results:
    return make_results(
        lambda name, *rest: robust_rates("standard" if name == "standard" else "robust", *rest),
        victims=("standard", victim),
    )


def hardly_attacked(victim: str) -> bool:
    flags = {flag.name: flag.raised_because for flag in compute_flags(results_of(victim))}
    return victim in flags.get("robust-accuracy-suspicious", "")


def test_an_entry_says_who_is_robust(tmp_path: Path) -> None:
    write_distribution(tmp_path, "tough-plugin", CODE, {"victims": {"tough": "TOUGH", "robust-sham": "SHAM"}})
    with installed(tmp_path, VICTIMS):
        assert is_robust("robust-fast:epsilon=0.2")
        assert is_robust("robust-divqat:epsilon=0.2")
        assert is_robust("tough")
        assert not is_robust("standard")
        assert not is_robust("robust-sham")
        assert CLAIMS in render(results_of("tough"), "md")
        assert CLAIMS not in render(results_of("robust-sham"), "md")
        assert hardly_attacked("robust-sham")
        assert not hardly_attacked("tough")


def test_a_victim_that_is_not_known_here_is_reported_without_them() -> None:
    assert not is_robust("tough:depth=3")
    for form in ("md", "html", "json", "sarif", "junit", "csv"):
        assert "tough" in render(results_of("tough:depth=3"), form)
    assert CLAIMS not in render(results_of("tough:depth=3"), "md")
    assert hardly_attacked("tough:depth=3")
