"""The report from results: right numbers, whole files, no torch, nothing of a user's names comes alive."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.builders import make_results, robust_rates

from art_divqat.errors import UserError
from art_divqat.report import (
    FORMATS,
    Thresholds,
    finding,
    render,
    render_html,
    render_json,
    render_markdown,
    summary_table,
    write_report,
)
from art_divqat.results.schema import Comparison, Estimate, Results


class Page(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.alts: list[str] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data"):
                self.addresses.append(value or "")
            if name == "alt":
                self.alts.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_files_are_written_and_the_json_is_the_results(tmp_path: Path) -> None:
    results = make_results()
    paths = write_report(results, tmp_path / "new" / "run")
    assert [p.name for p in paths] == ["results.json", "report.md", "report.html"]
    assert {p.name for p in paths} == {p.name for p in (tmp_path / "new" / "run").iterdir()}
    assert Results.model_validate_json(paths[0].read_text("utf-8")) == results


def test_the_same_results_give_the_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib; from support.builders import make_results;"
        "from art_divqat.report import render_html, render_markdown, render_json; r = make_results();"
        "print(hashlib.sha256((render_html(r) + render_markdown(r) + render_json(r)).encode()).hexdigest())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": s, "PATH": "", "PYTHONPATH": os.pathsep.join(sys.path)},
        ).stdout
        for s in ("1", "2")
    ]  # fmt: skip
    assert runs[0] == runs[1] != ""


def test_free_keys_are_sorted_and_values_that_are_no_number_become_null() -> None:
    results = make_results(seeds=1, budgets=(100,), environment={"b": float("nan"), "a": {"z": 1, "y": float("inf")}})
    text = render_json(results)
    assert text.index('"a"') < text.index('"b"')
    assert json.loads(text)["environment"] == {"a": {"y": None, "z": 1}, "b": None}
    assert list(json.loads(text))[:3] == ["schema_version", "tool", "environment"]
    assert text.endswith("}\n")


def test_global_random_state_and_rc_parameters_stay_as_they_are() -> None:
    import matplotlib

    before = (random.getstate(), np.random.get_state()[1].tolist(), dict(matplotlib.rcParams))
    render_html(make_results())
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), dict(matplotlib.rcParams))


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(make_results(), tmp_path)
    old = (tmp_path / "results.json").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("art_divqat._files.os.fsync", full)
    with pytest.raises(UserError, match="No space left"):
        write_report(make_results(seeds=1), tmp_path)
    assert (tmp_path / "results.json").read_bytes() == old
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(make_results(), tmp_path / "taken")


def test_the_page_is_whole_and_fetches_nothing() -> None:
    page = Page(render_html(make_results(defences=("none", "heuristic:beta=0.9"))))
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not page.handlers
    assert all(a.startswith(("#", "data:image/svg+xml;base64,", "data:text/csv;")) for a in page.addresses)
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
    assert page.tags.count("img") == len(page.alts) >= 3
    assert all(len(alt) > 40 for alt in page.alts)
    assert len(page.ids) == len(set(page.ids))


def test_page_and_markdown_say_the_same_numbers() -> None:
    results = make_results(defences=("none", "heuristic:beta=0.9"))
    text, markdown = " ".join(Page(render_html(results)).words), render_markdown(results).replace("\\", "")
    for row in results.summary:
        assert f"{100 * row.metrics['agreement'].mean:.1f} %" in text
        assert f"{100 * row.metrics['agreement'].mean:.1f} %" in markdown
    for heading in ("Does robustness travel?", "Standards", "Limits of this audit", "How to repeat it"):
        assert heading in text
        assert f"## {heading}" in markdown
    for standard in ("AML.T0024.002", "ML05:2023", "AITG-APP-09", "C11.3", "NISTAML.031"):
        assert standard in text
        assert standard in markdown


@pytest.mark.parametrize(("level", "rating"), [(0.95, "Vulnerable"), (0.8, "Warning"), (0.5, "Desired")])
def test_the_rating_follows_the_highest_agreement(level: float, rating: str) -> None:
    results = make_results(lambda *a: {**robust_rates(*a), "agreement": level}, noise=0.0)
    assert f"<span>Rating</span> {rating}</p>" in render_html(results)
    assert "Desired" in render_html(results, Thresholds(vulnerable=0.99, warning=0.97))


def test_thresholds_out_of_order_are_refused() -> None:
    with pytest.raises(UserError, match="at most vulnerable"):
        Thresholds(vulnerable=0.5, warning=0.7)


def test_results_without_a_cell_render() -> None:
    empty = make_results(victims=(), baseline=None, planned=12)
    for text in (render_html(empty), render_markdown(empty)):
        assert "nothing to say yet" in text
        assert "Not measured" in text or "not measured" in text
    assert summary_table(empty) == []


def test_one_budget_and_one_seed_render() -> None:
    results = make_results(budgets=(500,), seeds=1)
    assert "at 500 queries" in render_html(results)


def test_the_table_for_the_terminal_has_the_best_attacker_of_each_defence() -> None:
    rows = summary_table(make_results(defences=("none", "heuristic:beta=0.9"), noise=0.0))
    assert [(r["victim"], r["defence"], r["answers"]) for r in rows] == [
        ("standard", "none", "soft"),
        ("standard", "heuristic:beta=0.9", "hard"),
        ("robust:epsilon=0.2", "none", "soft"),
        ("robust:epsilon=0.2", "heuristic:beta=0.9", "hard"),
    ]
    assert rows[0]["agreement"] == "81.0 %"


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean html"):
        render(make_results(), "htm")


hostile = st.sampled_from([
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a|b`c*d", "]]>", "{{ 7*7 }}",
    "$\\frac{1}$", "a\nb", "\x00", "\u202ex",
]) | st.text(min_size=1, max_size=20)  # fmt: skip


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(victim=hostile, defence=hostile, attack=hostile, dataset=hostile)
def test_names_are_text_whatever_they_hold(victim: str, defence: str, attack: str, dataset: str) -> None:
    plain = Page(render_html(_one("victim", "defence", "attack", "digits")))
    page = Page(text := render_html(_one(victim, defence, attack, dataset)))
    assert page.tags == plain.tags
    assert not page.handlers
    assert "\x00" not in text
    assert "\u202e" not in text
    tables = [line for line in render_markdown(_one(victim, defence, attack, dataset)).splitlines() if line[:1] == "|"]
    assert len(tables) == len([x for x in render_markdown(_one("v", "d", "a", "s")).splitlines() if x[:1] == "|"])


def _one(victim: str, defence: str, attack: str, dataset: str) -> Results:
    # the parts of the page depend on whether the names say robust or none, so keep those out
    victim, defence = f"v{victim}", f"d{defence}"
    return make_results(
        lambda *a: {"agreement": 0.5, "thief_accuracy": 0.5},
        victims=(victim,), defences=(defence,), attacks=(attack,), baseline=None, budgets=(10,), dataset=dataset,
        seeds=1, answers=("soft",),
    )  # fmt: skip


def test_many_groups_are_cut_with_a_word_and_every_format_stays_quick() -> None:
    results = make_results(
        victims=("standard", *(f"robust:epsilon=0.{i}" for i in range(1, 6))), budgets=range(10, 1_010, 10), seeds=1,
        attacks=("knockoff", "random"),
    )  # fmt: skip
    assert len(results.cells) == 2_400
    start = time.process_time()
    rendered = {name: render(results, name) for name in FORMATS}
    # 10,000 cells are to take 10 s; this is a quarter of that, with room for a slow machine
    assert time.process_time() - start < 10
    assert "Of 2,400 rows 300 are shown" in rendered["html"]
    assert len(json.loads(rendered["json"])["cells"]) == 2_400
    assert rendered["csv"].count("\n") == 2_401
    assert len(rendered["html"]) < 10_000_000


def test_a_metric_that_a_seed_lacks_is_left_out_and_nothing_breaks() -> None:
    results = make_results()
    for row in results.summary:
        del row.metrics["agreement"]
    for name in FORMATS:
        assert render(results, name)
    assert "nothing to say yet" in finding(results)


def test_what_was_done_to_the_images_is_in_every_report() -> None:
    data = {"dataset": {"test": 360, "notes": ["2 of 9 <pictures> turned"]}, "pool": {"notes": ["squashed"]}}
    results = make_results(data={**data, "evasion_images": 200})
    assert "What was done to the images | 2 of 9 \\<pictures\\> turned; queries: squashed" in render_markdown(results)
    assert "2 of 9 &lt;pictures&gt; turned; queries: squashed" in render_html(results)
    assert "What was done to the images" not in render_markdown(make_results())
    assert json.loads(render_json(results))["data"]["pool"]["notes"] == ["squashed"]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"kind": "object", "architecture": "Net"}, "an object of Python's (Net)"),
        ({"kind": "endpoint", "outputs": "probabilities", "classes": 10, "answers": ["top 3 of 10"]}, "an endpoint"),
        (None, "a model from outside"),
    ],
)
def test_a_model_from_outside_is_named_as_what_it_is(model: dict[str, Any] | None, said: str) -> None:
    results = make_results()
    kept = "npz:/home/somebody/.cache/art-divqat/arrays/0123456789abcdef0123456789abcdef.npz"
    outside = {"external": {}, "model": "resnet20", "dataset": kept, "victims": ["external:name=shop.pt,sha256=x01"]}
    results = results.model_copy(
        update={
            "config": {**results.config, **outside},
            "data": {**results.data, **({} if model is None else {"model": model})},
        }
    )
    page = render_markdown(results)
    assert "arrays given in Python · shop.pt · " in page
    assert f"{said} on arrays given in Python" in page
    assert ("10 probabilities; top 3 of 10" in page) == (said == "an endpoint")
    command = "art_divqat.audit_model(model, config=" if said.startswith("an object") else "audit --config $RUN/config"
    assert command in page
    assert "art-divqat evaluate --config" not in page


def test_a_best_attacker_that_was_measured_elsewhere_is_said_once_and_only_then() -> None:
    sentence = "chosen on one half of the test images and measured on the other"
    results = make_results(attacks=("knockoff", "scout"))
    assert sentence not in render_markdown(results)
    top = max(
        (row for row in results.summary if row.victim == "standard" and row.budget == 1_000),
        key=lambda row: row.metrics["agreement"].mean,
    )
    for shift, said in ((0.0, 0), (0.013, 1), (0.00001, 0)):
        plain = top.metrics["agreement"]
        moved = Estimate(mean=plain.mean - shift, low=plain.low, high=plain.high)
        where = top.model_dump(include={"dataset", "victim", "defence", "attack", "answers", "budget", "n_seeds"})
        best = Comparison(**where, kind="best_attacker", metric="agreement", value=moved)
        page = render_markdown(results.model_copy(update={"comparisons": [*results.comparisons, best]}))
        assert page.count(sentence) == said


def test_an_audited_model_is_called_so() -> None:
    name = "external:name=shop.pt,sha256=x01"
    results = make_results(victims=(name,), baseline=None, defences=("none", "rounding:decimals=1"))
    results = results.model_copy(update={"config": {**results.config, "external": {}, "victims": [name]}})
    page = render_markdown(results)
    for sentence in (finding(results), page):
        assert "the audited model" in sentence
        assert "external victim" not in sentence
        assert "the external" not in sentence


@pytest.mark.parametrize(
    ("attacks", "said"),
    [
        (["knockoff"], "Images from photos and a network"),
        (["knockoff", "scout"], "photos (scout also from pictures that a program draws) and"),
        (
            ["scout:pools=generated+mnist"],
            "(scout:pools=generated+mnist also from pictures that a program draws, mnist)",
        ),
        (["scout:pools=mnist", "scout:pools=mnist,rounds=2"], "(scout:pools=mnist, scout:pools=mnist,rounds=2 also"),
        (["scout:pools=none", "elsewhere:tries=3"], "Images from photos and a network"),
    ],
)
def test_pools_of_an_attacks_own_are_named(attacks: list[str], said: str) -> None:
    results = make_results()
    config = {**results.config, "attacks": attacks, "query_pool": "photos"}
    page = render_markdown(results.model_copy(update={"config": config}))
    assert said in page
    assert "only verdicts are corrected for how many there are" in page
