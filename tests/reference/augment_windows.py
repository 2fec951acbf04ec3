"""Poses of a window, pair by pair: every affinity is known by the two voxels that it is of."""

from collections import defaultdict

import numpy as np


def turned(array, pose):
    """A window in a pose."""
    array = array[:: -1 if pose.reverse else 1]
    array = array[:, :: -1 if pose.flip_y else 1]
    array = array[:, :, :: -1 if pose.flip_x else 1]
    return np.ascontiguousarray(array.swapaxes(1, 2) if pose.transpose else array)


def mean_affinities(runner, volume, poses, margin=(0, 0, 0)):
    """Mean over poses of what is said of each pair of voxels, at the later one.

    What a pose says of the first line of an axis belongs to that line if it is the first in the
    window, too; if it is the last, it is of no pair of the window.
    """
    inner = tuple(slice(m, n - m) for m, n in zip(margin, volume.shape, strict=True))
    places = np.moveaxis(np.indices(volume.shape), 0, -1)[inner] - margin
    shape = places.shape[:3]
    said = defaultdict(list)
    for pose in poses:
        affinity = runner.affinities(turned(volume, pose))
        where = np.stack([turned(places[..., k], pose) for k in range(3)], -1)
        for channel, step in enumerate(np.eye(3, dtype=int)):
            for at in np.ndindex(where.shape[:3]):
                one, before = where[at], np.subtract(at, step)
                if (before < 0).any():
                    axis = np.flatnonzero(_direction(where, channel))[0]
                    if one[axis] == 0:
                        said[(axis, *one)].append(affinity[(channel, *at)])
                    continue
                other = where[tuple(before)]
                axis = int(np.flatnonzero(one != other)[0])
                said[(axis, *np.maximum(one, other))].append(affinity[(channel, *at)])
    mean = np.zeros((3, *shape))
    for place, values in said.items():
        mean[place] = np.mean(values)
    return mean


def _direction(where, channel):
    """Which axis of the window a channel of the turned one runs along."""
    ends = where[(0,) * 3], np.moveaxis(where, channel, 0)[(-1, 0, 0)]
    return ends[0] != ends[1]
