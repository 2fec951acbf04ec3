"""Which voxel an affinity links to: the one place where that convention lives.

An affinity is stored at the later of two voxels and links to the earlier one, as in waterz
(``basic_watershed.hpp``): channel 0 at z links to z - 1, channel 1 at y to y - 1, channel 2 at x
to x - 1. So the first number of an offset that is not 0 is negative.
"""

from __future__ import annotations

Offset = tuple[int, int, int]

NEAREST: tuple[Offset, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""The three channels of a segmentation, z, y, x; the first three of every neighborhood."""

_DIAGONAL: tuple[Offset, ...] = ((-1, -1, -1), (-1, 1, 1), (-1, -1, 1), (-1, 1, -1))
_FAR: tuple[Offset, ...] = ((0, -9, 0), (0, 0, -9))
_FARTHEST: tuple[Offset, ...] = ((0, -27, 0), (0, 0, -27))


def _oblique(near: int, far: int) -> tuple[Offset, ...]:
    """Six links within a section that follow no axis."""
    pairs = [(far, far), (far, -far), (far, near), (near, far), (near, -far), (far, -near)]
    return tuple((0, -y, -x) for y, x in pairs)


_TO_9 = (*NEAREST, *_DIAGONAL, *_FAR)
_TO_17 = (*_TO_9, *_oblique(4, 9), *_FARTHEST)
_AXES = tuple(
    (0,) * axis + (-length,) + (0,) * (2 - axis)
    for lengths in zip((1, 2, 3, 4), (1, 3, 9, 27), (1, 3, 9, 27), strict=True)
    for axis, length in enumerate(lengths)
)

NEIGHBORHOODS: dict[int, tuple[Offset, ...]] = {
    3: NEAREST,
    7: _TO_9[:7],
    9: _TO_9,
    12: tuple((z, y, x) for z, y, x in _AXES),
    15: _TO_17[:15],
    17: _TO_17,
    23: (*_TO_17, *_oblique(9, 27)),
}
"""Offsets of each number of channels, voxels z, y, x.

12 is that of the published 3D teacher (1, 2, 3, 4 along z; 1, 3, 9, 27 along y and x); 17 is that
of the mutex watershed on anisotropic volumes (Wolf et al. 2018), of which 7, 9 and 15 are parts.
"""
