"""Which voxel an affinity links to: the one place where that convention lives.

An affinity is stored at the later voxel and links to the voxel at a negative offset, as in waterz
(``basic_watershed.hpp``): channel 0 at z links to z - 1, channel 1 at y to y - 1, channel 2 at x
to x - 1.
"""

NEAREST: tuple[tuple[int, int, int], ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""The three channels of a segmentation, z, y, x."""
