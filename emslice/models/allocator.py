"""Memory that a network frees and asks for again, kept by the process.

glibc gives large blocks back to the system when they are freed; a network asks for the same blocks
again in the next layer, and the kernel fills them with zeros, page by page. On AC4 that was a
quarter of the time (2.0 million page faults for 16 sections of 512 x 512; none afterwards).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST = 2**31 - 1
USUAL = 128 * 1024
"""Bytes. What glibc starts with, for both thresholds."""


@contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Have this process keep what it frees, and give it back in the end.

    Yields False where the C library is not glibc: nothing changes there. For processes whose work
    is prediction. One arena, for good: others than the first cannot hold blocks above 64 MiB.
    """
    try:
        library = ctypes.CDLL(None)
        mallopt, trim = library.mallopt, library.malloc_trim
    except (OSError, AttributeError):
        yield False
        return
    mallopt(M_ARENA_MAX, 1)
    done = [mallopt(name, LARGEST) for name in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)]
    try:
        yield all(done)
    finally:
        for name in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            mallopt(name, USUAL)
        trim(0)
