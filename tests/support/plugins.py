"""A distribution with plug-ins, as an installer would leave it: a module, and a `.dist-info` with entry points."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from art_divqat.registry import Registry


def write_distribution(folder: Path, name: str, code: str, points: Mapping[str, Mapping[str, str]]) -> None:
    """Write `NAME 1.2` with one module of the same name (`-` as `_`) into a folder that is, or will be, on the path.

    :param points: the names of the plug-ins, and the object of the module that each is, by group (`victims`, …).
    """
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    information = folder / f"{module}-1.2.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n", encoding="utf-8")
    lines = [
        line
        for group, objects in points.items()
        for line in (f"[art_divqat.{group}]", *(f"{key} = {module}:{target}" for key, target in objects.items()))
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
