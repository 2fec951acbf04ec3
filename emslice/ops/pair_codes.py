"""Embeddings to codes in one pass: the twin of ``pair_affinity`` and ``quantise`` for processors.

Sums run in float32, channel after channel, whatever the embeddings are stored in: nothing is
reordered or contracted, so every processor computes the same codes from the same embeddings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emslice.ops.bfloat16 import widen

SMALLEST = np.float32(1e-12)
"""Length below which an embedding counts as this long, as in ``torch.nn.functional.normalize``."""


def pair_codes(before: NDArray[Any], here: NDArray[Any]) -> NDArray[np.uint8]:
    """Codes of the later section of a pair, to the section before and within itself.

    The first row and column are those of `pair_affinity`.

    Parameters
    ----------
    before, here : float32 or bfloat16 as uint16, shape (C, Y, X)
        Embeddings of sections z - 1 and z; need not be normalised.

    Returns
    -------
    codes : uint8, shape (3, Y, X)
    """
    _, height, width = here.shape
    codes = np.full((3, height, width), 255, np.uint8)
    _compare(before, here, codes)
    for axis in (1, 2):
        repeat_third_line(codes[axis], axis - 3)
    return codes


def repeat_third_line(codes: Any, axis: int) -> None:
    """Give the first line of an axis, which has no earlier neighbour, the codes of the third.

    As `affinity.pair_affinity`: of two lines those of the second, and a single one has 255.

    Parameters
    ----------
    codes : array or Tensor, uint8, shape (..., Y, X), of the channel along the axis
    axis : -2 or -1
    """
    lines = codes.swapaxes(0, axis)
    lines[0] = lines[min(2, len(lines) - 1)] if len(lines) > 1 else 255


@njit(nogil=True, cache=True)
def _compare(before: NDArray[Any], here: NDArray[Any], codes: NDArray[np.uint8]) -> None:
    channels, height, width = here.shape
    last = np.empty((channels, width), np.float32)
    rows = np.empty((2, channels, width), np.float32)  # of y and y - 1, by turns
    last_scale, scales = np.empty(width, np.float32), np.empty((2, width), np.float32)
    for y in range(height):
        row, scale = rows[y % 2], scales[y % 2]
        _load(before[:, y], last, last_scale)
        _load(here[:, y], row, scale)
        _dot(last, row, last_scale, scale, codes[0, y])
        if y:
            _dot(rows[1 - y % 2], row, scales[1 - y % 2], scale, codes[1, y])
        _dot(row[:, :-1], row[:, 1:], scale[:-1], scale[1:], codes[2, y, 1:])


@njit(nogil=True, cache=True)
def _load(stored: NDArray[Any], row: NDArray[np.float32], scale: NDArray[np.float32]) -> None:
    """A row of embeddings, shape (C, X), and what makes each of length 1."""
    channels, width = row.shape
    scale[:] = 0
    for c in range(channels):
        for x in range(width):
            value = widen(stored[c, x])
            row[c, x] = value
            scale[x] += value * value
    for x in range(width):
        scale[x] = np.float32(1) / max(np.sqrt(scale[x]), SMALLEST)


@njit(nogil=True, cache=True)
def _dot(
    one: NDArray[np.float32],
    other: NDArray[np.float32],
    one_scale: NDArray[np.float32],
    other_scale: NDArray[np.float32],
    codes: NDArray[np.uint8],
) -> None:
    """Codes of the cosines of two rows."""
    channels, width = one.shape
    total = np.zeros(width, np.float32)
    for c in range(channels):
        for x in range(width):
            total[x] += one[c, x] * other[c, x]
    for x in range(width):
        value = np.float32(256) * (total[x] * one_scale[x] * other_scale[x])
        codes[x] = np.uint8(min(max(value, np.float32(0)), np.float32(255)))
