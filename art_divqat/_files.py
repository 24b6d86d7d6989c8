"""File helpers: write files whole or not at all, name the cache folder, take an error's first line."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from art_divqat.errors import UserError

_KEPT_ARRAYS = re.compile(r"^npz:.*[/\\]arrays[/\\][0-9a-f]{16,64}\.npz$")


def cache_folder() -> Path:
    """`art-divqat` in the user's cache folder: trained victims, arrays given in Python, data sets."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "art-divqat"


def default_store() -> Path:
    """Where trained victims are kept: `art-divqat/victims` in the user's cache folder."""
    return cache_folder() / "victims"


def default_data_root() -> Path:
    """Where data sets are looked for and downloaded to unless `--data-root` says otherwise.

    `ART_DIVQAT_DATA` if it is set, else `art-divqat/data` in the user's cache folder.
    """
    named = os.environ.get("ART_DIVQAT_DATA")
    return Path(named) if named else cache_folder() / "data"


def is_kept_arrays(dataset: str) -> bool:
    """Whether a data set is the file that keeps arrays given in Python, of which their giver knows nothing.

    >>> is_kept_arrays("npz:/home/a/.cache/art-divqat/arrays/0123456789abcdef.npz"), is_kept_arrays("npz:arrays/a.npz")
    (True, False)
    """
    return _KEPT_ARRAYS.search(dataset) is not None


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then move it into place; leave nothing behind on failure.

    What was written is on the disk before it gets its name, and has the rights of any new file of the user's.

    :raises UserError: if the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from None
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner reads
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text_whole(path: Path, text: str) -> None:
    """Write UTF-8 text with line feeds, whole or not at all.

    :raises UserError: if the folder cannot be written or the disk is full.
    """
    write_whole(path, lambda temporary: temporary.write_bytes(text.encode("utf-8")))


def first_line(error: BaseException, most: int | None = None) -> str:
    """The first line of an error's text, or its type where it has none.

    :param most: the characters to cut it to; whole if None.

    >>> first_line(ValueError("\\nno such layer\\nmore")), first_line(KeyError())
    ('no such layer', 'KeyError')
    >>> first_line(ValueError("no such layer"), 7)
    'no such…'
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip()
    return line if most is None or len(line) <= most else f"{line[:most]}…"
