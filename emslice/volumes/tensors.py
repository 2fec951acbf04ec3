"""The one module that knows tensorstore: arrays opened and made, in z, y, x order.

N5 counts axes from the fastest, so its arrays are transposed here and nowhere else.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import tensorstore as ts

from emslice.errors import VolumeError

ERRORS = (ValueError, OSError, RuntimeError)
"""What tensorstore raises: most failures of a store arrive as ValueError."""


@cache
def _context() -> Any:
    """One context per process, made at first use: its threads do not survive a fork.

    No cache: a block is read once, and memory is budgeted by the engine. A worker is one of many
    on its machine, hence few threads. ``file_io_sync`` makes a finished write durable: each file
    and its folder are synced (seen with strace); that new folders above it are kept as well is
    left to the journal of the file system (ext4, XFS).
    """
    threads = {"limit": min(4, os.cpu_count() or 1)}
    return ts.Context(
        {
            "cache_pool": {"total_bytes_limit": 0},
            "data_copy_concurrency": threads,
            "file_io_concurrency": threads,
            "file_io_sync": True,
        }
    )


def _spec(path: str, driver: str) -> dict[str, Any]:
    return {"driver": driver, "kvstore": {"driver": "file", "path": path}}


def open_tensor(path: str, driver: str, writable: bool) -> Any:
    """Handle of an existing array, axes (Z, Y, X) or (C, Z, Y, X)."""
    try:
        tensor = ts.open(
            _spec(path, driver), open=True, read=True, write=writable, context=_context()
        ).result()
    except ERRORS as error:
        raise VolumeError(f"{path}: cannot be opened as {driver}: {_short(error)}") from error
    return tensor.T if driver == "n5" else tensor


def create_tensor(path: str, driver: str, metadata: dict[str, Any]) -> None:
    """Make an empty array with exactly this metadata; fails if one is there."""
    spec = {**_spec(path, driver), "metadata": metadata}
    try:
        ts.open(spec, create=True, open=False, context=_context()).result()
    except ERRORS as error:
        raise VolumeError(f"{path}: cannot be made as {driver}: {_short(error)}") from error


def _short(error: Exception) -> str:
    """Message without the dump of the whole spec that tensorstore appends."""
    return str(error).split(" [", 1)[0]
