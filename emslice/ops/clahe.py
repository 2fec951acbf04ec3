"""Contrast-limited adaptive histogram equalisation that does not see blocks.

As Zuiderveld (Graphics Gems IV, 1994): a section is cut into cells, each cell gets the table that
equalises its histogram, clipped so that noise is not blown up, and a voxel is moved by the tables
of the four cells whose centres are around it, interpolated. Three things differ, so that a voxel's
value depends on its place in the section alone: cells have a fixed size and start at the origin of
the domain; a cell weighs as much as it has imaged voxels, so cells cut off by the section's edge
or by blank raw need no rule of their own; and all of it is integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emslice.ops.lookup import LEVELS


def equalising_tables(
    counts: NDArray[np.integer[Any]], clip: float
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Table of each cell, and the number of voxels behind it.

    Parameters
    ----------
    counts : integer, shape (..., 256)
    clip : float
        Most that a grey value may have, as a multiple of what it has in a flat histogram, in steps
        of 1/256. What is above is spread over all values.

    Returns
    -------
    tables : uint8, shape (..., 256)
        ``v`` becomes 255 times the share of values up to ``v``, rounded; 0 in an empty cell.
    sizes : int64, shape (...)
    """
    counts = counts.astype(np.int64)
    sizes: NDArray[np.int64] = counts.sum(-1)
    limit = np.maximum(1, round(256 * clip) * sizes // (256 * LEVELS))[..., None]
    clipped = np.minimum(counts, limit)
    excess = sizes[..., None] - clipped.sum(-1, keepdims=True)
    # shares of the excess that add up to it exactly: differences of floor(k excess / 256)
    edges = np.arange(LEVELS + 1) * excess // LEVELS
    reached = np.cumsum(clipped + np.diff(edges, axis=-1), -1)
    n = np.maximum(1, sizes)[..., None]
    return ((2 * (LEVELS - 1) * reached + n) // (2 * n)).astype(np.uint8), sizes


def equalise(
    shown: NDArray[np.uint8],
    first: tuple[int, int],
    tables: NDArray[np.uint8],
    sizes: NDArray[np.int64],
    first_cell: tuple[int, int],
    cell: int,
) -> NDArray[np.uint8]:
    """Grey values moved by the tables of the four cells around each voxel.

    Bilinear between the centres of cells, each corner weighed by its voxels besides; beyond the
    outermost centres the nearest cells count alone.

    Parameters
    ----------
    shown : uint8, shape (Y, X)
    first : (int, int)
        Place of its first voxel in the section.
    tables : uint8, shape (cells y, cells x, 256)
        Of every cell that holds one of the voxels or is next to one that does, as far as the
        section goes.
    sizes : int64, shape (cells y, cells x)
    first_cell : (int, int)
        Index of the first of these cells in the section.
    cell : int
        Voxels along each side.
    """
    moved = np.empty_like(shown)
    y, x = (place - cell * index for place, index in zip(first, first_cell, strict=True))
    _interpolate(shown, y, x, tables, sizes, cell, moved)
    return moved


@njit(nogil=True, cache=True)
def _interpolate(
    shown: NDArray[np.uint8],
    first_y: int,
    first_x: int,
    tables: NDArray[np.uint8],
    sizes: NDArray[np.int64],
    cell: int,
    moved: NDArray[np.uint8],
) -> None:
    n_y, n_x = sizes.shape
    for i in range(shown.shape[0]):
        # in half voxels from the centre of the cell above: centres lie between voxels
        upper, far_y = divmod(2 * (first_y + i) + 1 - cell, 2 * cell)
        y0, y1 = max(upper, 0), min(upper + 1, n_y - 1)
        for j in range(shown.shape[1]):
            left, far_x = divmod(2 * (first_x + j) + 1 - cell, 2 * cell)
            x0, x1 = max(left, 0), min(left + 1, n_x - 1)
            total, weights = 0, 0
            for y, near_y in ((y0, 2 * cell - far_y), (y1, far_y)):
                for x, near_x in ((x0, 2 * cell - far_x), (x1, far_x)):
                    weight = near_y * near_x * sizes[y, x]
                    total += weight * tables[y, x, shown[i, j]]
                    weights += weight
            # a blank cell among blank cells: what is imaged always has its own cell
            moved[i, j] = (2 * total + weights) // (2 * weights) if weights else 0
