r"""A fingerprint of voxels that no format, chunk or blocking can change.

Definition. Cut the array into cells of 64 x 64 x 64 voxels anchored at its first voxel, clipped at
its far faces. The digest is the SHA-256, in hexadecimal, of

    b"emslice digest 1\n" + dtype + b"\n" + shape + b"\n" + h_0 + h_1 + ...

where dtype is NumPy's little-endian name (``<u8``, ``|u1``), shape is the decimal lengths joined by
commas (Z,Y,X or C,Z,Y,X), and each h is the 32-byte SHA-256 of one channel of one cell, its voxels
little-endian in C order. Cells follow each other in C order of z, y, x; the channels of a cell
follow each other, so that memory stays bounded. Floats count bit by bit: -0.0 is not 0.0.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.errors import GeometryError
from emslice.geometry.boxes import Coordinate, Roi, clip, show
from emslice.volumes.volume import ArrayVolume, Volume

CELL = 64
"""Voxels, each side."""

READ_BYTES = 64 << 20
"""What one thread reads at once, if a single cell is not more."""


def digest_array(array: NDArray[Any]) -> str:
    """Digest of an array, shape (Z, Y, X) or (C, Z, Y, X)."""
    return digest(ArrayVolume(array))


def digest(
    volume: Volume,
    roi: Roi | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Digest of a volume, or of its part in ``roi``: equal to that of the array read from there.

    Parameters
    ----------
    roi : Roi, domain voxels
    workers : threads; as many as processors, at most 4, if None
    progress : called with reads done and reads in all

    Notes
    -----
    Peak memory: a read of 64 MiB and its cells a worker, and 32 bytes for each cell of one layer.
    """
    roi = volume.roi if roi is None else roi
    if not volume.roi.contains(roi) or min(roi.shape) < 1:
        raise GeometryError(
            f"{volume.url}: digest of {show(roi)}: choose voxels within {show(volume.roi)}."
        )
    total = hashlib.sha256(_header(volume, roi))
    layers = _layers(roi, _read_side(volume))
    done, reads = 0, sum(len(boxes) for boxes in layers)
    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:
        for boxes in layers:
            table = np.empty((*_cells(roi)[1:], volume.channels or 1, 32), np.uint8)
            parts = pool.map(partial(_digest_cells, volume), boxes)
            for box, part in zip(boxes, parts, strict=True):
                y, x = ((box.begin - roi.begin) // CELL)[1:]
                table[y : y + part.shape[0], x : x + part.shape[1]] = part
                done += 1
                if progress is not None:
                    progress(done, reads)
            total.update(table.data)
    return total.hexdigest()


def _header(volume: Volume, roi: Roi) -> bytes:
    channels = () if volume.channels is None else (volume.channels,)
    shape = ",".join(str(int(n)) for n in (*channels, *roi.shape))
    return f"emslice digest 1\n{volume.dtype.newbyteorder('<').str}\n{shape}\n".encode()


def _cells(roi: Roi) -> tuple[int, ...]:
    """Cells along z, y, x."""
    return tuple(-(-int(n) // CELL) for n in roi.shape)


def _read_side(volume: Volume) -> int:
    """Side in y and x of what is read at once: a power of two, to go with most chunks."""
    side, column = CELL, CELL * (volume.channels or 1) * volume.dtype.itemsize
    while (2 * side) ** 2 * column <= READ_BYTES:
        side *= 2
    return side


def _layers(roi: Roi, side: int) -> list[list[Roi]]:
    """Boxes to read, one cell deep, for every layer of cells."""
    starts = [range(0, int(n), step) for n, step in zip(roi.shape, (CELL, side, side), strict=True)]
    size = Coordinate(CELL, side, side)
    return [
        [clip(Roi(roi.begin + Coordinate(z, y, x), size), roi) for y, x in product(*starts[1:])]
        for z in starts[0]
    ]


def _digest_cells(volume: Volume, box: Roi) -> NDArray[np.uint8]:
    """Digests of the cells of a box one cell deep, shape (cells y, x, channels, 32)."""
    voxels = volume.read(box).reshape(volume.channels or 1, *box.shape)
    voxels = voxels.astype(voxels.dtype.newbyteorder("<"), copy=False)
    digests = np.empty((*_cells(box)[1:], len(voxels), 32), np.uint8)
    for y, x, c in np.ndindex(digests.shape[:3]):
        cell = voxels[c, :, y * CELL : (y + 1) * CELL, x * CELL : (x + 1) * CELL]
        hashed = hashlib.sha256(np.ascontiguousarray(cell).data).digest()
        digests[y, x, c] = np.frombuffer(hashed, np.uint8)
    return digests
