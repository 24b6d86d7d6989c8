"""The C library's allocator, set to keep freed memory: networks on large images request the same sizes again."""

from __future__ import annotations

import ctypes

# of glibc's malloc.h; other C libraries have no such function, or give 0 for what they do not know
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let freed memory be used again instead of going back to the system; whether the allocator can.

    By default what is over some megabytes is mapped, cleared and unmapped each time. The features of photographs of
    224×224 then cost half as much time again, all of it the system's. It is for processes that are ours: whoever uses
    the library may want their memory back.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # threads share one heap: those of their own are too small for what is kept here
    return all(mallopt(option, value) for option, value in (
        (_ARENA_MAX, 1),
        (_MMAP_THRESHOLD, 2**30),
        (_TRIM_THRESHOLD, _MOST),
    ))  # fmt: skip
