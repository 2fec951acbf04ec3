"""Test-time augmentation of 3D networks: each window in several poses, averaged as affinities.

A window is all that the network sees, so a pose turns the window; where windows lie and how they
are blended stays as it is. An affinity is carried to the later voxel of its pair: of a window of n
rows flipped along y, the one at row k is that of rows n - 1 - k and n - k, and belongs to the
latter. So a flipped pose knows nothing of the first row, whose partner lies outside of the window:
there the mean is that of the others. Columns and, in reversed order, sections alike.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emslice.models.augment import Pose


class VolumeRunner(Protocol):
    """How a 3D network is run."""

    def affinities(self, volume: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Affinities of a window's output to its nearest neighbours, shape (3, Z, Y, X)."""


class AugmentedRunner:
    """The mean of a network's affinities of a window over poses, added up in their order."""

    def __init__(self, runner: VolumeRunner, poses: tuple[Pose, ...]) -> None:
        self._runner, self._poses = runner, poses

    def affinities(self, volume: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As `VolumeRunner`."""
        parts = (
            carry_home(self._runner.affinities(turn(volume, pose)), pose) for pose in self._poses
        )
        total = next(parts)
        for part in parts:
            total += part
        n = len(self._poses)
        for axis, reversed_in in enumerate(zip(*map(_reversed, self._poses), strict=True)):
            # Here only those poses count that know of it.
            total[axis].swapaxes(0, axis)[0] *= n / (n - sum(reversed_in))
        total /= n
        return total


def turn(volume: NDArray[np.uint8], pose: Pose) -> NDArray[np.uint8]:
    """A window, shape (Z, Y, X), as it is shown in a pose."""
    turned = volume[tuple(slice(None, None, -1 if back else 1) for back in _reversed(pose))]
    return np.ascontiguousarray(turned.swapaxes(1, 2) if pose.transpose else turned)


def carry_home(affinity: NDArray[np.float32], pose: Pose) -> NDArray[np.float32]:
    """Affinities (3, Z, Y, X) of a turned window at the voxels of the window, a copy.

    0 where a pair lies partly outside.
    """
    if pose.transpose:
        affinity = affinity[[0, 2, 1]].swapaxes(2, 3)
    home = affinity.copy()
    for axis, back in enumerate(_reversed(pose)):
        if back:
            home = np.flip(home, axis + 1).copy()
            own = home[axis].swapaxes(0, axis)
            own[1:] = own[:-1].copy()
            own[0] = 0
    return home


def _reversed(pose: Pose) -> tuple[bool, bool, bool]:
    """Axes z, y, x that a pose turns around."""
    return pose.reverse, pose.flip_y, pose.flip_x
