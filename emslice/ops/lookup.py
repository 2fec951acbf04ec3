"""Grey values of sections moved to where a network expects them, by tables of 256 values.

Histograms are exact integers, so those of parts add up to that of the whole whatever the parts
are, and a table is a function of histograms alone. Raw 0 was never imaged: it is not counted, and
it stays 0. Tables that change within a section are in ``clahe.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

LEVELS = 256


@dataclass(frozen=True)
class GreyLevel:
    """Mean and standard deviation of the grey values (0 to 255) that a network was trained on."""

    mean: float
    std: float


def count_levels(
    shown: NDArray[np.uint8],
    raw: NDArray[np.integer[Any]],
    cell: tuple[int, int],
    first: tuple[int, int] = (0, 0),
) -> NDArray[np.uint32]:
    """Histograms of cells of each section; voxels whose raw is 0 are left out.

    Parameters
    ----------
    shown : uint8, shape (Z, Y, X)
        ``raw`` in 8 bits.
    raw : integer, shape (Z, Y, X)
    cell : (int, int)
        Voxels y, x; cells start at multiples of it in the section.
    first : (int, int)
        Place of the first voxel in its section.

    Returns
    -------
    counts : uint32, shape (Z, cells y, cells x, 256)
        The first cell is the one that the first voxel lies in.
    """
    (y, x), (height, width) = first, cell
    n_y = (y + shown.shape[1] - 1) // height - y // height + 1
    n_x = (x + shown.shape[2] - 1) // width - x // width + 1
    counts = np.zeros((len(shown), n_y, n_x, LEVELS), np.uint32)
    _count(shown, raw, height, width, y % height, x % width, counts)
    return counts


@njit(nogil=True, cache=True)
def _count(
    shown: NDArray[np.uint8],
    raw: NDArray[Any],
    height: int,
    width: int,
    y: int,
    x: int,
    counts: NDArray[np.uint32],
) -> None:
    for z in range(shown.shape[0]):
        for i in range(shown.shape[1]):
            row = counts[z, (y + i) // height]
            for j in range(shown.shape[2]):
                if raw[z, i, j] != 0:
                    row[(x + j) // width, shown[z, i, j]] += 1


def moments_of(counts: NDArray[np.integer[Any]]) -> dict[str, int]:
    """Number of voxels, sum of their values and of its squares, which add up over histograms.

    Python's integers do not overflow at 10^15 voxels.
    """
    pairs = [(v, int(n)) for v, n in enumerate(counts)]
    return {
        "voxels": sum(n for _, n in pairs),
        "total": sum(v * n for v, n in pairs),
        "squares": sum(v * v * n for v, n in pairs),
    }


def level_from(voxels: int, total: int, squares: int) -> GreyLevel | None:
    """Mean and standard deviation from moments; None without voxels."""
    if voxels == 0:
        return None
    variance = (voxels * squares - total * total) / (voxels * voxels)
    return GreyLevel(total / voxels, math.sqrt(variance))


def level_of(counts: NDArray[np.integer[Any]]) -> GreyLevel | None:
    """Mean and standard deviation of a histogram; None if it is empty."""
    return level_from(**moments_of(counts))


def affine_table(counts: NDArray[np.integer[Any]], target: GreyLevel) -> NDArray[np.uint8]:
    """Table that gives grey values a target's mean and standard deviation, rounded and clipped.

    Grey values that are all equal are only shifted; without any, the table changes nothing.
    """
    here, values = level_of(counts), np.arange(LEVELS)
    if here is None:
        return values.astype(np.uint8)
    gain = target.std / here.std if here.std > 0 else 1.0
    moved = np.floor((values - here.mean) * gain + target.mean + 0.5)
    return np.clip(moved, 0, LEVELS - 1).astype(np.uint8)


def match_table(
    counts: NDArray[np.integer[Any]], target: NDArray[np.integer[Any]]
) -> NDArray[np.uint8]:
    """Table that gives grey values the distribution of a target histogram, as nearly as it can.

    Value ``v`` becomes the smallest one at which the target's share of values up to it reaches
    the share of values below ``v`` and of half of those at ``v``. Nothing is changed if one of
    the two histograms is empty.
    """
    ours, theirs = ([int(n) for n in histogram] for histogram in (counts, target))
    n_ours, n_theirs = sum(ours), sum(theirs)
    table = np.arange(LEVELS, dtype=np.uint8)
    if n_ours == 0 or n_theirs == 0:
        return table
    below, level, reached = 0, 0, theirs[0]
    for value, count in enumerate(ours):
        # products of counts of 10^15 voxels leave 64 bits: Python's integers do not
        rank = (2 * below + count) * n_theirs
        while 2 * reached * n_ours < rank:
            level += 1
            reached += theirs[level]
        table[value] = level
        below += count
    return table
