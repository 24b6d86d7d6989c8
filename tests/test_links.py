"""Every path, link, command and import path that the pages name is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from art_divqat.registry import GROUPS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "evaluations").rglob("*.md")])
# the first lines of a study's files say how it is run; modules name pages
_CODE_FILES = [path for part in ("art_divqat", "evaluations") for path in (ROOT / part).rglob("*.py")]
SAYING = sorted([*PAGES, *_CODE_FILES, *(ROOT / "evaluations").rglob("*.yaml")])
# what the text names ahead of its being there; a line here that is no longer dead fails
KNOWN: dict[str, str] = {}
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)
# what a command writes need not be there: `--output evaluations/studies/defences/run`
_PATH = re.compile(r"(?<![\w/.-])(?<!--output )(?<!--out )((?:evaluations|docs|tests|art_divqat)/[\w./-]*[\w/])")
_CONFIG = re.compile(r"--config[ =]+([\w./-]+/[\w./-]*\w)")
_SCRIPT = re.compile(r"\bpython3? (?!-)([\w./-]+\.py)")
_MODULE = re.compile(r"\bpython3? -m (evaluations(?:\.\w+)+)")
_DOTTED = re.compile(r"(?<![\w./-])art_divqat((?:\.\w+)+)")


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blanked(text: str, *patterns: re.Pattern[str]) -> str:
    """The text with what the patterns match as spaces, each line where it was."""
    for pattern in patterns:
        text = pattern.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
    return text


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings, and those written as HTML.

    >>> sorted(anchors("# What's `new`, in 0.1?\\n## Again\\n## Again"))
    ['again', 'again-1', 'whats-new-in-01']
    """
    found = set(re.findall(r"<a\s+(?:id|name)=\"([^\"]+)\"", text))
    seen: dict[str, int] = {}
    for heading in _HEADING.findall(blanked(text, _FENCE)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if slug in seen else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return found


def dead_links(page: Path) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    for match in _LINK.finditer(blanked(text, _FENCE, _CODE)):
        target, _, anchor = match.group(1).partition("#")
        where = f"{shown(page)}:{text.count(chr(10), 0, match.start()) + 1}"
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists():
            yield f"{where}: links {target}, which is not there."
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
            yield f"{where}: links {match.group(1)}, and {shown(file)} has no such heading."


def dead_paths(page: Path) -> Iterator[str]:
    """Paths and commands that name no file; a folder called RUN is the reader's own."""
    # a command may be broken over lines; a space for the break leaves every place where it was
    text = re.sub(r"\s", " ", page.read_text(encoding="utf-8"))
    lines = page.read_text(encoding="utf-8")
    for pattern, what in ((_PATH, "names"), (_CONFIG, "runs with"), (_SCRIPT, "runs"), (_MODULE, "runs")):
        for match in pattern.finditer(text):
            path = match.group(1).replace(".", "/") + ".py" if pattern is _MODULE else match.group(1)
            there = (ROOT / path).exists() or (pattern is _MODULE and (ROOT / path).with_suffix("").is_dir())
            if not there and path.split("/")[0].lower() != "run":
                yield f"{shown(page)}:{lines.count(chr(10), 0, match.start()) + 1}: {what} {match.group(1)}: not there."


def dead_imports(page: Path) -> Iterator[str]:
    """Import paths that no module has; the last part may be a name in the file of the module before it."""
    text = page.read_text(encoding="utf-8")
    for match in _DOTTED.finditer(text):
        parts = match.group(1).strip(".").split(".")
        if parts[0] in GROUPS and len(parts) == 1:
            continue
        folder, module = ROOT / "art_divqat", ROOT / "art_divqat" / "__init__.py"
        while parts and ((folder / parts[0]).is_dir() or (folder / f"{parts[0]}.py").is_file()):
            module = folder / f"{parts[0]}.py"
            folder = folder / parts.pop(0)
            module = module if module.is_file() else folder / "__init__.py"
        source = module.read_text(encoding="utf-8") if module.is_file() else ""
        if parts and not re.search(rf"\b{parts[0]}\b", source):
            yield f"{shown(page)}:{text.count(chr(10), 0, match.start()) + 1}: names {match.group()}: not there."


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    assert not (dead := list(dead_links(page))), "\n" + "\n".join(dead)


def test_paths_and_commands_are_there() -> None:
    dead = [line for page in SAYING for line in dead_paths(page)]
    unknown = [line for line in dead if not any(f" {known}: " in line for known in KNOWN)]
    assert not unknown, "\n" + "\n".join(unknown)
    assert not (gone := [known for known in KNOWN if not any(f" {known}: " in line for line in dead)]), gone


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_import_paths_are_there(page: Path) -> None:
    assert not (dead := list(dead_imports(page))), "\n" + "\n".join(dead)


def test_what_is_dead_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "art_divqat").mkdir()
    (tmp_path / "art_divqat" / "__init__.py").write_text("there = 1\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# One\n[a](#one) [b](#two) [c](gone.md)\n`[d](gone.md)` art_divqat.there art_divqat.gone\n"
        "`art-divqat evaluate --config\nevaluations/c.yaml --output evaluations/run`\n"
        "`python x.py`, `python -m evaluations.y`\n"
    )
    assert [line.partition(": ")[0] for line in dead_links(page)] == ["page.md:2"] * 2
    assert [line.partition(": ")[0] for line in dead_imports(page)] == ["page.md:3"]
    assert {line.partition(": ")[2].split()[-3] for line in dead_paths(page)} == {
        "evaluations/c.yaml:", "x.py:", "evaluations.y:",
    }  # fmt: skip


def test_every_study_and_benchmark_is_in_the_table() -> None:
    table = (ROOT / "evaluations" / "README.md").read_text(encoding="utf-8")
    folders = [p.parent for p in (ROOT / "evaluations" / "studies").rglob("config.yaml")]
    folders += [p for p in (ROOT / "evaluations" / "benchmarks").iterdir() if p.is_dir() and p.name != "__pycache__"]
    for folder in folders:
        assert f"]({folder.relative_to(ROOT / 'evaluations').as_posix()}/" in table, folder
    for folder in (ROOT / "evaluations" / "benchmarks").glob("[!_]*/"):
        first = (folder / "README.md").read_text(encoding="utf-8").partition("\n")[0]
        assert re.fullmatch(r"# \w.* .* .*", first), f"{folder.name}/README.md: {first!r} names no quantity"
