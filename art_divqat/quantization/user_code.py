"""Lines of the user: find, in a traceback, the innermost one that belongs to no library."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_PACKAGE = str(Path(__file__).parent.parent)
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
_LIBRARIES = tuple({sysconfig.get_paths()["purelib"], str(Path(torch.__file__).parent.parent)})
# Networks are subclasses of these packages' classes, and their lines are what a user can act on.
_NETWORKS = ("torchvision", "timm", "transformers")
_TRAINING_ARGUMENT = {"batch_norm": 5, "native_batch_norm": 5, "cudnn_batch_norm": 5, "_native_batch_norm_legit": 5}


def user_frame(frames: Iterable[traceback.FrameSummary]) -> traceback.FrameSummary | None:
    """The innermost frame inside a network's own code; None if there is none.

    Lines of the standard library, of this package and of installed packages are none, but for packages of networks.
    """
    for frame in reversed(list(frames)):
        if not frame.filename.startswith("<") and not _is_library(frame.filename):
            return frame
    return None


def describe_line(frame: traceback.FrameSummary | None) -> str:
    """` at "if x.sum() > 0:" (nets.py:12)`, or nothing.

    >>> describe_line(traceback.FrameSummary("/home/me/nets.py", 12, "forward", line="if x.sum() > 0:"))
    ' at `if x.sum() > 0:` (nets.py:12)'
    """
    return "" if frame is None else f" at `{(frame.line or '').strip()}` ({Path(frame.filename).name}:{frame.lineno})"


class LineWatch(TorchDispatchMode):
    """Notes, inside the block, the first line of the network that draws at random, the first that normalises by its
    batch, and all that read a tensor's value into Python, as `if x.sum() > 0` and `x.max().item()` do.

    >>> with LineWatch() as watch:
    ...     _ = torch.ones(2) + 1
    >>> watch.random, watch.batch, watch.values
    ('', '', [])
    """

    def __init__(self) -> None:
        super().__init__()
        self.random = ""
        self.batch = ""
        self.values: list[str] = []
        # whoever asks for the watch is no line of the network
        self._depth = len(traceback.extract_stack()) - 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.random = self.random or self._line()
        if func is torch.ops.aten._local_scalar_dense.default:
            self.values.append(self._line())
        index = _TRAINING_ARGUMENT.get(func.overloadpacket.__name__)
        if index is not None and len(args) > index and args[index] is True:
            self.batch = self.batch or self._line()
        return func(*args, **(kwargs or {}))

    def _line(self) -> str:
        return describe_line(user_frame(traceback.extract_stack()[self._depth :]))


def _is_library(filename: str) -> bool:
    for folder in _LIBRARIES:
        if filename.startswith(folder):
            return Path(filename).relative_to(folder).parts[0] not in _NETWORKS
    return filename.startswith((_PACKAGE, _STANDARD_LIBRARY))
