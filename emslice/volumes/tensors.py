"""The one module that knows tensorstore: arrays opened and made, in z, y, x order.

N5 counts axes from the fastest, so its arrays are transposed here and nowhere else.
"""

from __future__ import annotations

import errno
import os
import re
from functools import cache
from itertools import pairwise, product
from typing import Any

import tensorstore as ts
from numpy.typing import NDArray

from emslice.errors import EmsliceError, StorageError, VolumeError

ERRORS = (ValueError, OSError, RuntimeError)
"""What tensorstore raises: most failures of a store arrive as ValueError."""

REFUSALS = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL),
}
"""System errors that blame the place that was asked for; any other blames the store."""


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
        raise failure(f"{path}: cannot be opened as {driver}", error) from error
    return tensor.T if driver == "n5" else tensor


def create_tensor(path: str, driver: str, metadata: dict[str, Any]) -> None:
    """Make an empty array with exactly this metadata; fails if one is there."""
    spec = {**_spec(path, driver), "metadata": metadata}
    try:
        ts.open(spec, create=True, open=False, context=_context()).result()
    except ERRORS as error:
        raise failure(f"{path}: cannot be made as {driver}", error) from error


def write_tensor(tensor: Any, array: NDArray[Any]) -> None:
    """Store an array of the tensor's shape, chunk by chunk.

    One write of many chunks fails with the first of them while the others go on, and they would
    bring back files that the caller removes. Here nothing is in flight after a return or an error.
    """
    axes = [
        _spans(axis.inclusive_min, axis.exclusive_max, origin, step)
        for axis, origin, step in zip(
            tensor.domain,
            tensor.chunk_layout.grid_origin,
            tensor.chunk_layout.write_chunk.shape,
            strict=True,
        )
    ]
    begin = tensor.domain.inclusive_min
    pieces = []
    try:
        for piece in product(*axes):
            there = tuple(slice(lo, hi) for lo, hi in piece)
            here = tuple(
                slice(lo - first, hi - first) for (lo, hi), first in zip(piece, begin, strict=True)
            )
            pieces.append(tensor[there].write(array[here]))
        for written in pieces:
            written.result()
    finally:
        for written in pieces:
            written.exception()


def _spans(begin: int, end: int, origin: int, step: int) -> list[tuple[int, int]]:
    """Parts of an axis, cut where chunks meet."""
    inner = range(begin - (begin - origin) % step + step, end, step)
    return list(pairwise([begin, *inner, end]))


def failure(what: str, error: Exception) -> EmsliceError:
    """`VolumeError` if the place is at fault, `StorageError` if the store is: full, broken."""
    if isinstance(error, OSError):
        code = error.errno
    else:
        found = re.search(r"os_error_code='(\d+)'", str(error))
        code = int(found[1]) if found else None
    kind = VolumeError if code is None or code in REFUSALS else StorageError
    return kind(f"{what}: {_short(error)}")


def _short(error: Exception) -> str:
    """Message without the dump of the whole spec that tensorstore appends."""
    return str(error).split(" [", 1)[0]
