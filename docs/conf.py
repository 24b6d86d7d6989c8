"""The site, made by Sphinx: ART's own generator, which reads docstrings as this package writes them (`:param:`)."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.util import logging
from sphinx.util.nodes import get_node_source, make_refnode

from art_divqat import __version__

logger = logging.getLogger(__name__)
HERE = Path(__file__).parent
ROOT = HERE.parent
REPOSITORY = "https://github.com/art-divqat/art-divqat"

project, author, copyright = "art-divqat", "The art-divqat authors", "The art-divqat authors"
version = release = __version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode", "myst_nb"]
exclude_patterns = ["**/art-divqat-runs", "**/.ipynb_checkpoints"]
html_theme = "furo"
html_title = f"art-divqat {__version__}"
html_theme_options = {"source_repository": f"{REPOSITORY}/", "source_branch": "main", "source_directory": "docs/"}
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
# a block without a language is what a terminal shows
highlight_language = "text"

# anchors as a code host makes them, so that links work there and here
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

# the notebooks hold no outputs: they are run here, and one that fails fails the site
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
# where notebooks have no widgets, tqdm says so
nb_output_stderr = "remove"

nitpicky = True
autodoc_member_order = "groupwise"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_use_unqualified_type_names = True
autodoc_preserve_defaults = True
add_module_names = False

PUBLIC = (
    "art_divqat",
    "art_divqat.defences.trainer",
    "art_divqat.defences.postprocessor",
    "art_divqat.defences.gradient",
    "art_divqat.attacks.extraction",
    "art_divqat.attacks.recovery",
    "art_divqat.attacks.evasion",
    "art_divqat.estimators",
    "art_divqat.testing",
)
"""Packages whose every name has docstrings and stands in the reference."""


def setup(app: Any) -> None:
    app.connect("source-read", link_repository_files)
    app.connect("source-read", describe_commands)
    app.connect("autodoc-process-docstring", as_restructured_text)
    app.connect("missing-reference", name_of_ours)
    app.connect("env-check-consistency", check_reference)


def link_repository_files(app: Any, name: str, source: list[str]) -> None:
    """A page links files of the repository by their place beside it, as a code host has it; the site links the host."""
    folder = Path(app.env.doc2path(name)).parent

    def linked(match: re.Match[str]) -> str:
        path, anchor = match.groups()
        target = Path(os.path.normpath(folder / path))
        if target.is_relative_to(HERE) or not target.exists():
            return match.group()
        kind = "tree" if target.is_dir() else "blob"
        return f"]({REPOSITORY}/{kind}/main/{target.relative_to(ROOT).as_posix()}{anchor or ''})"

    source[0] = re.sub(r"\]\(((?:\.\./)+[^)#\s\\]*)(#[^)\s\\]*)?\)", linked, source[0])


def describe_commands(app: Any, name: str, source: list[str]) -> None:
    """The page of the command line says what `--help` says, by topic."""
    if name != "reference/command-line":
        return
    import typer

    from art_divqat.cli.app import app as command_line

    parts = []
    for title, command in typer.main.get_command(command_line).commands.items():  # type: ignore[attr-defined]
        text = options_as_code(re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.help)))
        parts.append(f"## {title}\n\n{text}\n\n    {command.epilog.removeprefix('Example: ')}\n")
        topics: dict[str, list[str]] = {}
        for parameter in command.params:
            names = (
                parameter.opts if parameter.opts[0].startswith("-") else [parameter.metavar or parameter.name.upper()]
            )
            shown = ", ".join(f"`{each}`" for each in (*names, *parameter.secondary_opts))
            topic = getattr(parameter, "rich_help_panel", None) or "Arguments and options"
            meaning = options_as_code(parameter.help or "").replace("|", r"\|")
            topics.setdefault(topic, []).append(f"| {shown} | {meaning} |")
        for topic, rows in topics.items():
            parts.append("\n".join([f"**{topic}**\n", "| | |", "|---|---|", *rows, ""]))
    source[0] += "\n" + "\n".join(parts)


def options_as_code(text: str) -> str:
    """So that no dash is made of the two of `--option`."""
    return re.sub(r"(?<![\w-])(--[\w-]+)", r"`\1`", text)


def as_restructured_text(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings mark code with one backtick, absolute values with bars; reStructuredText has other uses for both."""
    for number, line in enumerate(lines):
        code = re.sub(r"(?<![`:\w])`([^`\n]+)`(?!`)(?!__?\b)", r"``\1``", line)
        parts = re.split(r"(``[^`]+``)", code)
        lines[number] = "".join(part if part.startswith("``") else part.replace("|", r"\|") for part in parts)


def name_of_ours(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """A name as the docstring's own module knows it. One that is there and has no page is left as text."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    within = (get_node_source(node) or "").rpartition("docstring of ")[2].split(".")
    scopes = ["", *(".".join(within[:length]) + "." for length in range(len(within), 0, -1) if within[0])]
    found = next((scope + target for scope in scopes if exists(scope + target)), None)
    if found is None:
        # a type in an annotation, which only a type checker imports, is no reference that somebody wrote
        return None if isinstance(contnode, (nodes.literal, addnodes.literal_strong)) else contnode
    entry = env.get_domain("py").objects.get(found)
    if entry is None:
        return contnode
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode)


def exists(dotted: str) -> bool:
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(parts[:length]))
            for part in parts[length:]:
                thing = getattr(thing, part)
        except (ImportError, AttributeError, ValueError):
            continue
        return True
    return False


def check_reference(app: Any, env: Any) -> None:
    """Every public name, and every public method of ours that it has, is documented and stands in the reference."""
    documented = {entry[0] for entry in env.get_domain("py").get_objects()}
    for package in PUBLIC:
        module = importlib.import_module(package)
        for name in module.__all__:
            if name.startswith("__"):
                continue
            thing, full = getattr(module, name), f"{package}.{name}"
            if full not in documented:
                logger.warning("%s is public, and the reference does not show it", full)
            for missing in undocumented(thing, full):
                logger.warning("%s is public and has no docstring", missing)


def undocumented(thing: Any, full: str) -> list[str]:
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return []
    bare = [] if inspect.getdoc(thing) else [full]
    members = vars(thing) if inspect.isclass(thing) else {}
    for name, member in members.items():
        method = inspect.isroutine(member) or isinstance(member, (property, classmethod, staticmethod))
        # a field may have a function for its default
        field = name in getattr(thing, "__dataclass_fields__", ())
        if method and not field and not name.startswith("_") and not inspect.getdoc(getattr(thing, name)):
            bare.append(f"{full}.{name}")
    return bare
