"""The rules of the rooms, read out of the source: who may import whom, and where state, names and statistics live.

docs/developing.md says them in prose; the rule of the table of metrics is with that table's tests. A violation is a
line `file:line: what, and what to do`. What is known and being worked on stands in KNOWN; a known violation that is no
longer there fails too, so that the list only ever shrinks.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from art_divqat.registry import GROUPS, Registry

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "art_divqat"
# from the bottom to the top; a room may import its own level and those below, but not the rooms that PARTS it from
LEVELS: tuple[tuple[str, ...], ...] = (
    ("errors", "_*"),
    ("registry", "parameters", "specs"),
    ("quantization", "data", "metrics", "models"),
    ("estimators",),
    ("attacks",),
    ("defences",),
    ("victims",),
    ("plan",),
    ("results",),
    ("audit", "report"),
    ("api", "evaluation", "outcome"),
    ("testing",),
    ("cli",),
)
PARTED = {"audit": "report", "report": "audit"}
LIGHT_ROOMS = ("plan", "results", "report")
HEAVY = ("torch", "torchvision", "torchattacks", "art", "matplotlib.pyplot")
LINES = 400
# every key is a violation as its test says it, without its line; the value says why it still stands
KNOWN: dict[str, str] = {
    "path: tests/support/plugins.py edits sys.path": "that is what installing a distribution of plug-ins is",
}


@dataclass(frozen=True)
class Violation:
    """What breaks a rule.

    :param key: without a line number, as KNOWN has it.
    :param where: `file:line`.
    :param remedy: what to do.
    """

    key: str
    where: str
    remedy: str


@dataclass(frozen=True)
class Import:
    """One module importing another of this package."""

    importer: str
    imported: str
    line: int

    @property
    def where(self) -> str:
        return f"{shown(MODULES[self.importer])}:{self.line}"


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room_of(module: str) -> str:
    """The first folder or module under the package; `_*` for the helpers of everyone, and for the package itself."""
    parts = module.split(".")
    if len(parts) == 1 or (parts[1].startswith("_") and parts[1] != "__main__"):
        return "_*"
    return "cli" if parts[1] == "__main__" else parts[1]


def level_of(module: str) -> int:
    room = room_of(module)
    for level, rooms in enumerate(LEVELS):
        if room in rooms:
            return level
    raise AssertionError(f"{module} is in no room of LEVELS: put {room} where it belongs in tests/test_architecture.py")


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING"


def run_time(node: ast.AST, functions: bool = True) -> Iterator[ast.AST]:
    """A tree without what stands under `if TYPE_CHECKING`, and without what functions do, if those are left out."""
    for child in ast.iter_child_nodes(node):
        if _for_types(child) or (not functions and isinstance(child, (ast.FunctionDef, ast.Lambda))):
            continue
        yield child
        yield from run_time(child, functions)


@cache
def lazy_names(package: str) -> dict[str, str]:
    """For a package with `lazy.attach`: the module that each of its names comes from."""
    path = MODULES[package]
    found: dict[str, str] = {}
    if path.name == "__init__.py":
        for call in ast.walk(tree_of(path)):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "lazy.attach":
                for keyword in call.keywords:
                    if keyword.arg == "submod_attrs":
                        for module, names in ast.literal_eval(keyword.value).items():
                            found |= dict.fromkeys(names, f"{package}.{module}")
    return found


def imported_modules(node: ast.AST, importer: str) -> list[str]:
    """The full names that an import statement asks for, to the module that a name comes from in this package."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    module = node.module or ""
    if node.level:
        here = importer.split(".")
        depth = node.level - (MODULES[importer].name == "__init__.py")
        module = ".".join([*here[: len(here) - depth], *filter(None, [module])])
    if module.split(".")[0] != "art_divqat":
        return [module]
    assert module in MODULES or (PACKAGE.parent / module.replace(".", "/")).is_dir(), f"{importer}: no module {module}"
    found = []
    for alias in node.names:
        if f"{module}.{alias.name}" in MODULES:
            found.append(f"{module}.{alias.name}")
        else:
            found.append(lazy_names(module).get(alias.name, module))
    return found


@cache
def imports(functions: bool = True) -> tuple[Import, ...]:
    """What modules of this package import of each other when they run."""
    return tuple(
        Import(importer, imported, node.lineno)
        for importer, path in MODULES.items()
        for node in run_time(tree_of(path), functions)
        for imported in imported_modules(node, importer)
        if imported.split(".")[0] == "art_divqat" and imported != importer
    )


def lazy_targets() -> Iterator[tuple[str, int, str]]:
    """Each `"art_divqat.module:name"` in the source: who names it, in which line, and what it names."""
    for importer, path in MODULES.items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
                module, colon, name = node.value.partition(":")
                if colon and module.startswith("art_divqat.") and name.isidentifier():
                    yield importer, node.lineno, node.value


def check(rule: str, found: list[Violation]) -> None:
    """Fail on what is not known, and on what is known and no longer there."""
    known = {key for key in KNOWN if key.startswith(f"{rule}: ")}
    keys = {f"{rule}: {violation.key}" for violation in found}
    lines = [f"{v.where}: {v.key}. {v.remedy}" for v in found if f"{rule}: {v.key}" not in known]
    lines += [f"KNOWN says {key!r}, which is no longer so: take the line out." for key in sorted(known - keys)]
    assert not lines, f"\n{rule}:\n" + "\n".join(sorted(set(lines)))


def test_every_known_violation_belongs_to_a_rule() -> None:
    rules = {
        node.args[0].value
        for node in ast.walk(tree_of(Path(__file__)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "check" and isinstance(node.args[0], ast.Constant)
    }
    assert {key.partition(": ")[0] for key in KNOWN} <= rules


def test_imports_go_down() -> None:
    found = []
    for each in imports():
        above, below = room_of(each.importer), room_of(each.imported)
        if level_of(each.imported) > level_of(each.importer):
            remedy = f"{above} stands below {below}: move what is shared down, or hand it in."
        elif PARTED.get(above) == below:
            remedy = f"{above} and {below} stand side by side: what both need belongs in results."
        else:
            continue
        found.append(Violation(f"{shown(MODULES[each.importer])} imports {each.imported}", each.where, remedy))
    check("order", found)


def test_lazy_targets_exist_and_go_down() -> None:
    found = []
    for importer, line, target in lazy_targets():
        module, _, name = target.partition(":")
        where, key = f"{shown(MODULES[importer])}:{line}", f"{shown(MODULES[importer])} names {target}"
        if module not in MODULES:
            found.append(Violation(key, where, "There is no such module."))
        elif level_of(module) > level_of(importer):
            found.append(Violation(key, where, f"{room_of(importer)} stands below {room_of(module)}."))
        elif not (name in defined_in(MODULES[module]) or name in lazy_names(module)):
            found.append(Violation(key, where, f"{module} defines no {name}."))
    check("targets", found)


@cache
def defined_in(path: Path) -> frozenset[str]:
    """The names that a module binds at its top level."""
    names: set[str] = set()
    for node in run_time(tree_of(path), functions=False):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    for node in tree_of(path).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
    return frozenset(names)


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which reaches every other (Tarjan's strongly connected components of two and more)."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = lowest[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], index[other])
        if lowest[node] == index[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_no_modules_import_each_other() -> None:
    """Imports inside functions count: they put a circle off, and do not take it away."""
    edges: dict[str, set[str]] = defaultdict(set)
    for each in imports():
        edges[each.importer].add(each.imported)
    found = []
    for group in circles(edges):
        within = [each for each in imports() if each.importer in group and each.imported in group]
        found.append(
            Violation(
                ", ".join(module.removeprefix("art_divqat.") for module in group),
                ", ".join(sorted({each.where for each in within})),
                "They import each other: move what both need into a module below both, or hand it in.",
            )
        )
    check("circle", found)


def light_modules() -> list[str]:
    """What must be there at once, without torch and ART: what is asked, the record, the report, and every registry."""
    return [
        module
        for module, path in MODULES.items()
        if room_of(module) in LIGHT_ROOMS or path.stem == "registry" or path.stem.endswith("_registry")
    ]


# Imports every module with torch and ART shut out, then makes a configuration, a plan and every form of a report.
_IMPORTER = """
import sys
from importlib import import_module
heavy, folder, modules = sys.argv[1].split(","), sys.argv[2], sys.argv[3:]
class Shut:
    def find_spec(self, name, path=None, target=None):
        if name in heavy:
            raise ImportError(f"SHUT {name}")
sys.meta_path.insert(0, Shut())
failed = False
for module in modules:
    try:
        import_module(module)
    except ImportError as error:
        if not str(error).startswith("SHUT "):
            raise
        failed = True
        print(module, str(error).removeprefix("SHUT "))
if failed:
    sys.exit()
from art_divqat.registry import Registry
for module in filter(None, map(sys.modules.get, modules)):
    for value in list(vars(module).values()):
        if isinstance(value, Registry):
            value.summaries()
from pathlib import Path
from art_divqat.plan.cells import plan_cells
from art_divqat.plan.config import make_config
from art_divqat.plan.presets import resolve
assert plan_cells(resolve(make_config({})))
from art_divqat.report import FORMATS, render
from art_divqat.results.build import read_results
results = read_results(Path(folder))
for form in FORMATS:
    assert render(results, form)
print("loaded", [name for name in heavy if name in sys.modules])
"""


def test_plans_results_reports_and_registries_need_neither_torch_nor_art() -> None:
    study = ROOT / "evaluations" / "studies" / "mnist-one-seed"
    command = [sys.executable, "-c", _IMPORTER, ",".join(HEAVY), str(study), *light_modules()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    *failed, last = done.stdout.splitlines() or [""]
    failed += [last] if last != "loaded []" else []
    found = []
    for line in failed:
        module, heavy = line.split(maxsplit=1)
        remedy = f"Import {heavy} inside the functions that use it, or name them by a target `package.module:function`."
        found.append(Violation(f"{module} needs {heavy}", f"{shown(MODULES.get(module, PACKAGE))}:1", remedy))
    check("light", found)


_STATISTICS = ("art_divqat.metrics.intervals", "art_divqat.metrics.estimator", "art_divqat.metrics.verdicts")


def test_the_report_computes_no_statistics_and_only_the_command_line_knows_typer() -> None:
    found = []
    for module, path in MODULES.items():
        for node in ast.walk(tree_of(path)):
            for imported in imported_modules(node, module):
                where = f"{shown(path)}:{getattr(node, 'lineno', 1)}"
                key = f"{shown(path)} imports {imported}"
                if room_of(module) == "report" and imported in _STATISTICS:
                    found.append(Violation(key, where, "results/comparisons.py computes; the report reads its rows."))
                if room_of(module) != "cli" and imported.split(".")[0] in ("typer", "click"):
                    found.append(Violation(key, where, "Only art_divqat/cli/ speaks to the terminal."))
                if room_of(module) != "cli" and imported.startswith("art_divqat.cli"):
                    found.append(Violation(key, where, "Nothing imports the command line."))
    check("imports", found)


def registries() -> dict[str, tuple[str, Registry]]:
    """For each group of entry points, the module that holds its registry, and the registry."""
    found: dict[str, tuple[str, Registry]] = {}
    for name, path in MODULES.items():
        calls = (node.value for node in tree_of(path).body if isinstance(node, (ast.Assign, ast.AnnAssign)))
        if any(isinstance(c, ast.Call) and ast.unparse(c.func).partition("[")[0].endswith("Registry") for c in calls):
            for value in vars(importlib.import_module(name)).values():
                if isinstance(value, Registry):
                    found.setdefault(value.group, (name, value))
    return found


def test_every_group_of_entry_points_has_its_registry() -> None:
    missing = [group for group in GROUPS if group not in registries()]
    remedy = "A group without a registry takes no plug-ins: make one, as art_divqat/registry.py says."
    check("groups", [Violation(f"no registry of {g}", "art_divqat/registry.py:1", remedy) for g in missing])


def names_and_homes() -> dict[str, set[str]]:
    """Every registered name with the modules that own it."""
    homes: dict[str, set[str]] = defaultdict(set)
    for module, registry in registries().values():
        for name in registry:
            if registry.origin(name) is None:
                homes[name].add(module)
    return homes


def test_names_are_found() -> None:
    assert {"knockoff", "invert", "heuristic", "robust-fast", "resnet20", "mnist"} <= set(names_and_homes())


# words that are a registered name and something else as well: `file: word` where it is the other thing
HOMONYMS: dict[str, str] = {
    "art_divqat/cli/common.py: external": "the option of a configuration",
}
_STARTS, _ENDS = ("startswith", "removeprefix"), ("endswith", "removesuffix")


def _texts(node: ast.AST) -> list[str]:
    """The strings of a constant, or of a tuple, list or set of them."""
    parts = node.elts if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else [node]
    return [p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)]


def compared_names(path: Path, names: set[str]) -> Iterator[tuple[int, str, set[str]]]:
    """Where a module compares a string with registered names: the line, the text, and the names that it means."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Compare):
            texts = [text for side in (node.left, *node.comparators) for text in _texts(side)]
            for text in texts:
                if text in names:
                    yield node.lineno, text, {text}
        elif isinstance(node, ast.MatchValue):
            for text in _texts(node.value):
                if text in names:
                    yield node.lineno, text, {text}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            method = node.func.attr
            for text in _texts(node.args[0]) if method in _STARTS + _ENDS else ():
                part = text.rstrip(":")  # as in `robust:epsilon=0.1`
                meant = {n for n in names if (n.startswith(part) if method in _STARTS else n.endswith(part))}
                if meant and len(part) > 2:
                    yield node.lineno, text, meant


def test_a_name_is_compared_only_by_its_registry() -> None:
    homes = names_and_homes()
    found = []
    for module, path in MODULES.items():
        for line, text, meant in compared_names(path, set(homes)):
            if all(module in homes[name] for name in meant) or f"{shown(path)}: {text}" in HOMONYMS:
                continue
            remedy = (
                "What follows from a name is a property of its entry: add one there and read it; "
                "a word that is no name here goes into HOMONYMS."
            )
            found.append(Violation(f"{shown(path)} compares with {text!r}", f"{shown(path)}:{line}", remedy))
    check("names", found)


_MUTATORS = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "insert"}
    | {"move_to_end", "pop", "popitem", "popleft", "remove", "setdefault", "update"}
)


def _base(node: ast.AST) -> str | None:
    """The variable in front of `.name` and `[key]`; None where there is none of these."""
    if not isinstance(node, (ast.Attribute, ast.Subscript)):
        return None
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _locals(function: ast.FunctionDef) -> set[str]:
    arguments = function.args
    names = {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    names |= {a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node is not function:
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return names


def changed_globals(module: str) -> Iterator[tuple[int, str]]:
    """Where functions rebind or change what stands at the top of a module of this package."""
    tree = tree_of(MODULES[module])
    ours = {
        target.id
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if any(name.startswith("art_divqat") for name in imported_modules(node, module)):
            ours |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}  # type: ignore[attr-defined]
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        own = _locals(function)
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                yield from ((node.lineno, name) for name in node.names)
            elif isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
                if (name := _base(node)) in ours - own:
                    yield node.lineno, str(name)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATORS:
                target = node.func.value
                if isinstance(target, ast.Name) and target.id in ours - own:
                    yield node.lineno, target.id


def test_modules_hold_no_state() -> None:
    found = [
        Violation(
            f"{shown(MODULES[module])} changes {name}",
            f"{shown(MODULES[module])}:{line}",
            "State belongs to an object that somebody makes, hands on and lets go; only registries are filled once.",
        )
        for module in MODULES
        for line, name in changed_globals(module)
    ]
    check("state", found)


def test_evaluations_import_no_tests() -> None:
    tests = {path.stem for path in (ROOT / "tests").glob("*.py")} | {p.name for p in (ROOT / "tests").glob("*/")}
    tests = (tests | {"tests"}) - {p.name for p in PACKAGE.glob("*/")} - {"evaluations"}
    found = []
    for path in sorted((ROOT / "evaluations").rglob("*.py")):
        for node in ast.walk(tree_of(path)):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                if module.split(".")[0] in tests:
                    remedy = "Tests may use the studies, never the other way: move it beside the study."
                    key = f"{shown(path)} imports {module}"
                    found.append(Violation(key, f"{shown(path)}:{node.lineno}", remedy))  # type: ignore[attr-defined]
    check("evaluations", found)


def test_nobody_edits_the_path() -> None:
    edit = re.compile(r"\bsys\.path(\.\w+\(|\[.*\] *=|\s*\+?=)")
    remedy = "Tests have `pythonpath` of pyproject.toml, scripts their own folder and the installed package."
    found = [
        Violation(f"{shown(path)} edits sys.path", f"{shown(path)}:{line}", remedy)
        for part in ("tests", "evaluations")
        for path in sorted((ROOT / part).rglob("*.py"))
        for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if edit.search(text)
    ]
    check("path", found)


def test_tests_mirror_the_package() -> None:
    """`tests/ROOM/test_MODULE.py` or `test_MODULE_what.py`, or the room's own name for what its modules share."""
    found = []
    for path in sorted((ROOT / "tests").glob("*/**/test_*.py")):
        room = path.parent.relative_to(ROOT / "tests")
        if room.parts[0] in ("conformance", "cuda"):
            continue
        home = ROOT / room if room.parts[0] == "evaluations" else PACKAGE / room
        names = {each.stem.strip("_") for each in home.glob("*")} - {"init", ""} | {home.name}
        name = path.stem.removeprefix("test_")
        if not any(name == each or name.startswith(f"{each}_") for each in names):
            remedy = f"Name it after the module that it tests, in the folder of that; {shown(home)} has no such module."
            found.append(Violation(f"{shown(path)} tests no module", f"{shown(path)}:1", remedy))
    check("mirror", found)


def test_modules_are_short_and_say_what_they_are() -> None:
    found = []
    for path in MODULES.values():
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > LINES:
            found.append(
                Violation(
                    f"{shown(path)} is longer than {LINES} lines", f"{shown(path)}:{lines}", "Part it by purpose."
                )
            )
        first = (ast.get_docstring(tree_of(path)) or "").partition("\n")[0]
        if not first.endswith((".", ":", "`", "?")):
            remedy = "Its first line says noun, verb and object: what is found here."
            found.append(
                Violation(f"{shown(path)} has no docstring of one whole first line", f"{shown(path)}:1", remedy)
            )
    folders = {folder for path in MODULES.values() for folder in path.parents if PACKAGE in (folder, *folder.parents)}
    for folder in sorted(folders):
        if not (folder / "__init__.py").exists():
            remedy = "Add one with a docstring that says what the room is for."
            found.append(Violation(f"{shown(folder)} has no __init__.py", f"{shown(folder)}:1", remedy))
    check("modules", found)
