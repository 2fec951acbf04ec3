"""Raw that was never imaged: padding and blank tiles.

A uniform region has one embedding, hence affinities of 1 everywhere, and would become one giant
segment. Such voxels are masked: their affinities are set to 0 in all channels, and a voxel without
any affinity belongs to nobody (``ops/fragments.py``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BLANK_SIDE = 16
"""Voxels. A zero belongs to blank raw if it lies in an all-zero square of this side."""


def blank_voxels(raw: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Where raw is blank: the opening of ``raw == 0`` by a 16 x 16 square, section by section.

    Black voxels inside membranes (0.3 % of AC4) are not blank, as they do not fill such a square.
    The result at a voxel depends on raw up to 15 voxels away, in the section. An array shorter
    than 16 along an axis uses that length.

    Parameters
    ----------
    raw : integer, shape (Z, Y, X)

    Returns
    -------
    blank : bool, shape (Z, Y, X)
    """
    zero = raw == 0
    for z in range(len(raw)):
        if zero[z].any():
            size = tuple(min(BLANK_SIDE, n) for n in raw.shape[1:])
            # Beyond the border nothing is blank: the square must lie inside.
            zero[z] = ndimage.binary_opening(zero[z], np.ones(size, bool))
    return zero
