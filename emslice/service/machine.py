"""What this machine has to offer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from emslice.errors import ConfigError
from emslice.units import human_bytes

BASE_BYTES = 475 * 2**20
"""A worker's interpreter and libraries, torch and compiled kernels among them."""


LADDER_BYTES = 100 * 2**20
"""Buffers of the files of a graph that is worked off from disk (docs/results/ladder.md)."""


def default_node_memory(workers: int) -> int:
    """Bytes for the graph of a node: half of what one of some workers has beside the above."""
    return max(16 * 2**20, (free_memory() // workers - BASE_BYTES - LADDER_BYTES) // 2)


def n_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def free_memory() -> int:
    """Bytes of memory that can be had without swapping."""
    return _kilobytes("/proc/meminfo", "MemAvailable") * 1024


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes.

    Not ``ru_maxrss``, which Linux hands down from the parent through fork and exec.
    """
    return _kilobytes("/proc/self/status", "VmHWM") * 1024


def _kilobytes(file: str, name: str) -> int:
    for line in Path(file).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise KeyError(f"{file} has no {name}")


def check_writable(folder: Path, needed: int, what: str = "RUN") -> None:
    """Raise `ConfigError` unless a new folder could be made and filled there.

    The nearest existing parent is probed with a file that is removed at once.
    """
    parent = folder.absolute()
    while not parent.exists():
        parent = parent.parent
    probe = parent / f".emslice-probe-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"{what} {folder}: cannot write to {parent} ({error.strerror}). Choose another folder."
        ) from error
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise ConfigError(
            f"{what} {folder}: the results may take {human_bytes(needed)}, and {human_bytes(free)} "
            f"are free on {parent}. Free some space, choose another disk or a smaller --roi."
        )
