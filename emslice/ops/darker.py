"""The baseline that any network must beat: raw itself as affinities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def darker_affinity(shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Affinity codes of raw: the darker of a voxel and its lower neighbour along z, y, x.

    Membranes are dark, so what lies across one has a low affinity. Voxels without a lower
    neighbour are compared with themselves. No code is 0, which would mask a voxel.

    Parameters
    ----------
    shown : uint8, shape (Z, Y, X)

    Returns
    -------
    codes : uint8, shape (3, Z, Y, X), from 1

    Examples
    --------
    >>> darker_affinity(np.array([[[9, 4, 7]]], np.uint8))[2]
    array([[[9, 4, 4]]], dtype=uint8)
    """
    codes = np.broadcast_to(shown, (3, *shown.shape)).copy()
    for axis in range(3):
        ahead = np.moveaxis(codes[axis], axis, 0)[1:]
        np.minimum(ahead, np.moveaxis(shown, axis, 0)[:-1], out=ahead)
    return np.maximum(codes, np.uint8(1), out=codes)
