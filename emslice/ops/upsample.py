"""Features at twice the resolution beside those of the skip, in one pass over memory.

The twin of ``models.student.upsample`` followed by a concatenation, for processors: rows are
interpolated in float32 whatever the features are stored in, and rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emslice.ops.bfloat16 import narrow, widen


def join_upsampled(
    skip: NDArray[Any],
    deep: NDArray[Any],
    origin: tuple[int, int],
    section: tuple[int, int],
    joined: NDArray[Any],
) -> None:
    """Channels of ``skip``, then those of ``deep`` upsampled with the section's corners aligned.

    Parameters
    ----------
    skip : float32 or bfloat16 as uint16, shape (2 Y, 2 X, C)
    deep : the same type, shape (Y, X, D)
    origin, section : (int, int)
        First voxel of ``deep`` in its section and the section's size, y and x, at its level.
    joined : the same type, shape (2 Y, 2 X, C + D)
        Where the answer is written: whoever allocates it chooses how it is aligned.
    """
    weights = [_weights(deep.shape[a], origin[a], section[a]) for a in (0, 1)]
    _join(skip, deep, weights[0], weights[1], joined)


def add_upsampled(
    skip: NDArray[Any], scale: NDArray[np.float32], deep: NDArray[Any], total: NDArray[Any]
) -> None:
    """``scale`` times the skip, plus the deeper features upsampled with their corners aligned.

    Parameters
    ----------
    skip : float32 or bfloat16 as uint16, shape (Z, 2 Y, 2 X, C)
    scale : float32, shape (C,)
    deep : the same type as skip, shape (Z, Y, X, C)
        Whole: its corners are those of its sections.
    total : the same type, shape (Z, 2 Y, 2 X, C)
        Where the answer is written.
    """
    weights = [_weights(n, 0, n) for n in deep.shape[1:3]]
    for z in range(len(deep)):
        _add(skip[z], scale, deep[z], weights[0], weights[1], total[z])


def _weights(n: int, origin: int, length: int) -> NDArray[np.float32]:
    """Share of the neighbour in each output: the one before in even, the one behind in odd."""
    m = np.arange(origin, origin + n, dtype=np.float64)
    shares = np.stack([m, length - 1 - m], 1) / (2 * length - 1)
    return shares.ravel().astype(np.float32)


@njit(nogil=True, cache=True)
def _join(
    skip: NDArray[Any],
    deep: NDArray[Any],
    share_y: NDArray[np.float32],
    share_x: NDArray[np.float32],
    joined: NDArray[Any],
) -> None:
    height, width, depth = deep.shape
    first = skip.shape[2]
    row = np.empty((width, depth), np.float32)
    for y in range(2 * height):
        near = y // 2
        far = min(max(near - 1 + 2 * (y % 2), 0), height - 1)
        _lerp_rows(deep[near].reshape(-1), deep[far].reshape(-1), share_y[y], row.reshape(-1))
        for x in range(2 * width):
            here = x // 2
            there = min(max(here - 1 + 2 * (x % 2), 0), width - 1)
            share = share_x[x]
            for c in range(first):
                joined[y, x, c] = skip[y, x, c]
            for c in range(depth):
                value = row[here, c] + share * (row[there, c] - row[here, c])
                joined[y, x, first + c] = narrow(value, skip[0, 0, 0])


@njit(nogil=True, cache=True)
def _add(
    skip: NDArray[Any],
    scale: NDArray[np.float32],
    deep: NDArray[Any],
    share_y: NDArray[np.float32],
    share_x: NDArray[np.float32],
    total: NDArray[Any],
) -> None:
    height, width, depth = deep.shape
    row = np.empty((width, depth), np.float32)
    for y in range(2 * height):
        near = y // 2
        far = min(max(near - 1 + 2 * (y % 2), 0), height - 1)
        _lerp_rows(deep[near].reshape(-1), deep[far].reshape(-1), share_y[y], row.reshape(-1))
        for x in range(2 * width):
            here = x // 2
            there = min(max(here - 1 + 2 * (x % 2), 0), width - 1)
            share = share_x[x]
            for c in range(depth):
                value = row[here, c] + share * (row[there, c] - row[here, c])
                value += scale[c] * widen(skip[y, x, c])
                total[y, x, c] = narrow(value, skip[0, 0, 0])


@njit(nogil=True, cache=True)
def _lerp_rows(
    near: NDArray[Any], far: NDArray[Any], share: np.float32, row: NDArray[np.float32]
) -> None:
    for k in range(row.size):
        a, b = widen(near[k]), widen(far[k])
        row[k] = a + share * (b - a)
