"""Memory that a network frees and asks for again, kept by the process.

glibc gives large blocks back to the system when they are freed; a network asks for the same blocks
again in the next layer, and the kernel fills them with zeros, page by page. On AC4 that was a
quarter of the time (2.0 million page faults for 16 sections of 512 x 512; none afterwards).
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have this process keep what it frees, for good; False where the C library is not glibc.

    For processes whose work is prediction. One arena, since others than the first cannot hold
    blocks above 64 MiB.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, LARGEST), (M_TRIM_THRESHOLD, LARGEST))
    done = [mallopt(name, value) for name, value in settings]
    return all(done)
