"""Squared distance to the nearest outside voxel, in the section, capped.

Exact integers: a column pass (distance along y), then for each row the minimum over shifts left
and right of the squared column distance plus the squared shift, as far as any voxel of the row can
still improve (Saito and Toriwaki 1994). A shift is one pass over a row that stays in the cache,
without a branch, so that it compiles to vector instructions. The cap bounds the halo of a block.

Time O(voxels x distance), with 32 voxels an instruction on AVX-512; memory 4 or 8 bytes a voxel of
one row, no copy of the section.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

NARROW = 181
"""Largest radius of which the square fits uint16 twice."""


def capped_distance(inside: NDArray[np.bool_], radius: int, out: NDArray[np.uint16]) -> None:
    """Fill ``out`` with ``min(squared distance to the nearest outside voxel, radius ** 2)``.

    What lies beyond the array counts as inside. ``inside`` and ``out`` have shape (Y, X);
    ``radius`` is at most 255, so that its square fits uint16.
    """
    work = np.empty((2, inside.shape[1]), np.uint16 if radius <= NARROW else np.uint32)
    _along_columns(inside, radius, out)
    _along_rows(out, work[0], work[1])


@njit(nogil=True, cache=True)
def _along_columns(inside, radius, out):  # type: ignore[no-untyped-def]
    """Distance along y, at most ``radius``."""
    height, width = inside.shape
    for x in range(width):
        out[0, x] = radius if inside[0, x] else 0
    for y in range(1, height):
        for x in range(width):
            out[y, x] = min(out[y - 1, x] + 1, radius) if inside[y, x] else 0
    for y in range(height - 2, -1, -1):
        for x in range(width):
            out[y, x] = min(out[y, x], out[y + 1, x] + 1)


@njit(nogil=True, cache=True)
def _along_rows(out, square, best):  # type: ignore[no-untyped-def]
    """Squared distance in the plane from that along y; two rows to work in."""
    height, width = out.shape
    for y in range(height):
        farthest = 0
        for x in range(width):
            square[x] = out[y, x]
            square[x] *= square[x]
            best[x] = square[x]
            farthest = max(farthest, best[x])
        step = 1
        while step * step < farthest and step < width:
            reach = best.dtype.type(step * step)
            there, here = square[: width - step], best[step:]
            for x in range(there.size):
                here[x] = min(here[x], best.dtype.type(there[x] + reach))
            there, here = square[step:], best[: width - step]
            for x in range(there.size):
                here[x] = min(here[x], best.dtype.type(there[x] + reach))
            step += 1
            if step % 4 == 0:
                farthest = 0
                for x in range(width):
                    farthest = max(farthest, best[x])
        for x in range(width):
            out[y, x] = best[x]
