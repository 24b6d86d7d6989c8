"""Help is grouped by topic, fits 80 columns, and has an example that parses; colours stop where NO_COLOR says so."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from art_divqat.cli import completion, options
from art_divqat.cli.app import app
from art_divqat.cli.names import KINDS

GROUP: Any = typer.main.get_command(app)
TOPICS = {options.VICTIM, options.ATTACKER, options.AMOUNT, options.MACHINE, options.ENGINE}
TOPICS |= {options.RESULT, "An endpoint"}


@pytest.mark.parametrize("name", [None, *GROUP.commands])
def test_help_fits_a_narrow_terminal(name: str | None) -> None:
    shown = CliRunner().invoke(app, [*([name] if name else []), "--help"], env={"COLUMNS": "80", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert max(map(len, shown.output.splitlines())) <= 80
    if name:
        assert f"Example: art-divqat {name}" in shown.output
        # help keeps the line ends of all paragraphs but the first: a longer line breaks in the middle of a sentence
        _, *more = inspect.cleandoc(GROUP.commands[name].callback.__doc__).split("\n\n")
        assert max((len(line) for paragraph in more for line in paragraph.splitlines()), default=0) <= 78


@pytest.mark.parametrize("name", [*GROUP.commands])
def test_every_example_parses(name: str) -> None:
    command = GROUP.commands[name]
    words = shlex.split(command.epilog.removeprefix("Example: "))
    assert words[:2] == ["art-divqat", name]
    command.make_context(name, words[2:])


@pytest.mark.parametrize("name", ["evaluate", "audit", "train"])
def test_every_option_of_a_run_stands_under_a_topic(name: str) -> None:
    """A new option: add it to the table of topics in art_divqat/cli/options.py."""
    loose = [
        each.opts[0]
        for each in GROUP.commands[name].params
        if each.opts[0].startswith("--") and each.name != "help" and each.rich_help_panel not in TOPICS
    ]
    assert loose == []


def test_commands_are_grouped() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    assert [shown.index(topic) for topic in ("Make a run", "Look at runs", "This installation")] == sorted(
        shown.index(topic) for topic in ("Make a run", "Look at runs", "This installation")
    )


@pytest.mark.skipif(os.name == "nt", reason="a terminal of POSIX")
@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_is_respected(no_color: str, coloured: bool) -> None:
    import pty

    master, slave = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "CI")}
    environment |= {"TERM": "xterm-256color", **({"NO_COLOR": no_color} if no_color else {})}
    command = [sys.executable, "-m", "art_divqat", "list", "--help"]
    with subprocess.Popen(command, stdout=slave, stderr=slave, env=environment, close_fds=True) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
    os.close(master)
    assert process.returncode == 0
    assert b"Usage" in shown
    assert bool(re.search(rb"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])", shown)) is coloured


@pytest.mark.parametrize(
    ("option", "begun", "expected"),
    [
        ("--victim", "robust-t", ["robust-trades"]),
        ("--attack", "knockoff,cop", ["knockoff,copycat"]),
        ("--dataset", "emn", ["emnist"]),
        ("--query-pool", "mni", ["mnist"]),
        ("--preset", "pap", ["paper"]),
        ("--defence", "npz", []),
    ],
)
def test_names_are_completed(option: str, begun: str, expected: list[str]) -> None:
    (param,) = (each for each in GROUP.commands["evaluate"].params if option in each.opts)
    context = typer.Context(GROUP.commands["evaluate"])
    assert [item.value for item in param.shell_complete(context, begun)] == expected


def test_the_shell_gets_completions() -> None:
    words = "art-divqat list "
    environment = {"_ART_DIVQAT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'art-divqat'; from art_divqat.cli import main; main()"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == list(KINDS)
    assert completion.completed_kinds("a") == ["attacks"]
