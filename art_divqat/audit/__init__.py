"""Audit: run the cells of a configuration and keep a journal of what was measured."""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType
from typing import Any

# former modules that the documents told users to import from, and where they are now
_MOVED = {
    "api": "art_divqat.api",
    "config": "art_divqat.plan.config",
    "evaluation": "art_divqat.evaluation",
    "flags": "art_divqat.results.flags",
    "results": "art_divqat.results.build",
}


class _Moved(ModuleType):
    """A module by its former name: gives what the present one has, and says where that is."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        new = _MOVED[self.__name__.rpartition(".")[2]]
        value = getattr(importlib.import_module(new), name)
        warnings.warn(f"{self.__name__} has moved: import {name} from {new}.", DeprecationWarning, stacklevel=2)
        return value


for _name in _MOVED:
    sys.modules[f"{__name__}.{_name}"] = _Moved(f"{__name__}.{_name}")
