"""Overlapping windows to one volume, each voxel a weighted mean of the windows that hold it.

Windows are added one after the other, in float32: with the same windows in the same order a voxel
is the same, wherever the answer begins and ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emslice.geometry.boxes import Roi

SIGMA, LEAST = 0.2, 1e-6


def gaussian_weights(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Weight of each voxel of a window: ``1e-6 + exp(-d^2 / (2 sigma^2))``, sigma 0.2.

    ``d`` is the distance from the middle, with each axis from -1 at its first voxel to 1 at its
    last (published with the superhuman teacher). Computed in float64, rounded once.
    """
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    square = z**2 + y**2 + x**2
    return (LEAST + np.exp(-square / (2 * SIGMA**2))).astype(np.float32)


class Blend:
    """Codes of a box, made from rows of windows along z, from the first section to the last.

    Parameters
    ----------
    answer : Roi
        The box, in voxels of the domain.
    weights : float32, shape (Z, Y, X)
        Of a window's output.
    stride : int
        Sections from one row of windows to the next.
    first : int
        Section at which the first row's output begins.

    Notes
    -----
    16 bytes a voxel of the sections of one row, whatever the answer's depth.
    """

    def __init__(self, answer: Roi, weights: NDArray[np.float32], stride: int, first: int) -> None:
        depth, height, width = (int(n) for n in answer.shape)
        self.codes = np.zeros((3, depth, height, width), np.uint8)
        self._answer, self._weights, self._stride = answer, weights, stride
        self._total = np.zeros((3, len(weights), height, width), np.float32)
        self._weight = np.zeros((len(weights), height, width), np.float32)
        self._z = first

    def add(self, affinity: NDArray[np.float32], y: int, x: int) -> None:
        """Add a window of the row at hand, whose output begins at y and x of the domain.

        Parameters
        ----------
        affinity : float32, shape (3, Z, Y, X), in [0, 1]
        """
        here, there = [], []
        for begin, axis in ((y, 1), (x, 2)):
            low = max(begin, int(self._answer.begin[axis]))
            high = min(begin + self._weights.shape[axis], int(self._answer.end[axis]))
            here.append(slice(low - self._answer.begin[axis], high - self._answer.begin[axis]))
            there.append(slice(low - begin, high - begin))
        weight = self._weights[:, *there]
        self._total[:, :, *here] += affinity[:, :, *there] * weight
        self._weight[:, *here] += weight

    def end_row(self, last: bool) -> None:
        """Settle the sections that no further row reaches; all of them after the last row."""
        settled = len(self._weights) if last else self._stride
        low = max(self._z, int(self._answer.begin[0]))
        high = min(self._z + settled, int(self._answer.end[0]))
        for z in range(low, high):
            weight = self._weight[z - self._z]
            total = self._total[:, z - self._z]
            mean = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
            # 256 a is exact: a code is the floor of what was computed
            self.codes[:, z - self._answer.begin[0]] = np.minimum(mean * np.float32(256), 255)
        for array, axis in ((self._total, 1), (self._weight, 0)):
            rest = np.moveaxis(array, axis, 0)
            rest[:-settled] = rest[settled:]
            rest[-settled:] = 0
        self._z += settled
