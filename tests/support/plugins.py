"""A distribution with plug-ins, as an installer would leave it: its code, and a `.dist-info` with entry points."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from art_divqat.registry import Registry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLE = Path(__file__).parents[1] / "plugin_package"
"""The real distribution, with one plug-in of each kind."""


def write_distribution(folder: Path, name: str, code: str, points: Mapping[str, Mapping[str, str]]) -> None:
    """Write `NAME 1.2` with one module of the same name (`-` as `_`) into a folder that is, or will be, on the path.

    :param points: the names of the plug-ins, and the object of the module that each is, by group (`victims`, …).
    """
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    groups = {
        f"art_divqat.{group}": {key: f"{module}:{target}" for key, target in objects.items()}
        for group, objects in points.items()
    }
    _write_information(folder, name, "1.2", groups)


def copy_distribution(source: Path, folder: Path, version: str | None = None) -> None:
    """Lay a source folder's package and its entry points into a folder that is, or will be, on the path.

    :param source: the folder with pyproject.toml, and a package of the distribution's name (`-` as `_`).
    :param version: another one than pyproject.toml has.
    """
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module = project["name"].replace("-", "_")
    shutil.copytree(source / module, folder / module, ignore=shutil.ignore_patterns("__pycache__"))
    _write_information(folder, project["name"], version or project["version"], project["entry-points"])


def _write_information(folder: Path, name: str, version: str, groups: Mapping[str, Mapping[str, str]]) -> None:
    information = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir(parents=True)
    heading = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (information / "METADATA").write_text(heading, encoding="utf-8")
    lines = [
        line
        for group, objects in groups.items()
        for line in (f"[{group}]", *(f"{key} = {target}" for key, target in objects.items()))
    ]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def installed(folder: Path, *registries: Registry) -> Iterator[None]:
    """The distributions of a folder installed, and these registries as new processes would see them."""
    modules = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        _forget(registries)
        yield
    finally:
        sys.path.remove(str(folder))
        for added in set(sys.modules) - modules:
            if str(getattr(sys.modules[added], "__file__", "") or "").startswith(str(folder)):
                del sys.modules[added]
        _forget(registries)


def _forget(registries: tuple[Registry, ...]) -> None:
    importlib.invalidate_caches()
    for registry in registries:
        registry._loaded.clear()
        for read in ("_plugged", "_canonical"):
            registry.__dict__.pop(read, None)
