"""Mutex watershed (Wolf et al. 2018) of a section, by bioimage-cpp.

Its repulsive edges want affinities over long distances, which the published students do not give.
They are made from the nearest ones: two voxels of a row or column, ``REACH`` apart, repel each
other by the lowest affinity between them,

    repulsion(p, p - REACH e_k) = 1 - min of A_k over p - (REACH - 1) e_k ... p

Shorter ones than a membrane is thick leave its voxels single. Equal weights are
settled by bioimage-cpp's sort, in an order of places in the section: the result depends on the
block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emslice.errors import ConfigError

REACH = (9, 27)
"""Lengths of the repulsive edges, voxels; chosen on the crop of docs/results/postprocess.md."""


def mutex_section(codes: NDArray[np.uint8], reach: tuple[int, ...] = REACH) -> NDArray[np.uint64]:
    """Labels of a section by mutex watershed, 1 and up.

    Parameters
    ----------
    codes : uint8, shape (3, Y, X)
        Affinities along z, y, x; z is not looked at.
    """
    check_mutex()
    from bioimage_cpp.segmentation import mutex_watershed

    height, width = codes.shape[1:]
    offsets = [(-1, 0), (0, -1)]
    # Half a code up: a code stands for the interval up to the next one.
    weights = [(codes[1] + np.float32(0.5)) / 256, (codes[2] + np.float32(0.5)) / 256]
    for n in reach:
        for axis, size in ((0, height), (1, width)):
            if n < size:
                offsets.append((-n, 0) if axis == 0 else (0, -n))
                weights.append(1 - _lowest(weights[axis], n, axis))
    labels: NDArray[np.uint64] = mutex_watershed(np.stack(weights), offsets, 2)
    return labels


def _lowest(affinity: NDArray[np.float32], n: int, axis: int) -> NDArray[np.float32]:
    """Lowest of a voxel's and the n - 1 before it along an axis; wrong where those are outside."""
    from scipy.ndimage import minimum_filter1d

    lowest: NDArray[np.float32] = minimum_filter1d(affinity, n, axis, origin=(n - 1) // 2)
    return lowest


def check_mutex() -> None:
    """Raise `ConfigError` unless bioimage-cpp is installed."""
    try:
        import bioimage_cpp  # noqa: F401
    except ImportError:
        raise ConfigError(
            "fragments.method: mutex needs bioimage-cpp. Install it: pip install emslice[compare]"
        ) from None
