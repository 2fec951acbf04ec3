"""Poses one after the other on whole sections: turned, predicted, every affinity carried home.

Where an affinity belongs follows from the two voxels that it is of, looked up in coordinates that
are turned with the section: to the later of the two, in the channel of the axis along which they
differ.
"""

import numpy as np


def padded(section, axes):
    """A section padded by reflection; ``axes`` are those of its lattice."""
    width = [(axis.pad, axis.padded - axis.pad - axis.length) for axis in axes]
    return np.pad(section, width, mode="reflect")


def turn(array, pose):
    """An array of a padded section, flipped, then transposed."""
    array = array[::-1] if pose.flip_y else array
    array = array[:, ::-1] if pose.flip_x else array
    return np.ascontiguousarray(array.T if pose.transpose else array)


def carried_home(codes, pose, shape):
    """In-plane codes of a turned padded section (2, Y, X) at the voxels where they belong."""
    home = np.zeros((2, *shape), np.uint8)
    ys, xs = (turn(place, pose) for place in np.indices(shape))
    for channel, step in enumerate(((1, 0), (0, 1))):
        for i in range(step[0], ys.shape[0]):
            for j in range(step[1], ys.shape[1]):
                one = ys[i, j], xs[i, j]
                other = ys[i - step[0], j - step[1]], xs[i - step[0], j - step[1]]
                axis = 0 if one[0] != other[0] else 1
                home[(axis, *max(one, other))] = codes[channel, i, j]
    return home


def codes_in_pose(raw, pose, axes, predict_pair):
    """Codes (3, Z, Y, X) of raw in one pose.

    ``predict_pair`` gives the codes (3, Y, X) of the later of two padded sections.
    """
    n = len(raw)
    sections = [turn(padded(section, axes), pose) for section in raw]
    shape = tuple(axis.padded for axis in axes)
    codes = np.zeros((3, n, *shape), np.uint8)
    upside = {"y": pose.flip_y, "x": pose.flip_x}
    for z in range(n):
        before = max(z - 1, 0)
        if pose.reverse:
            along_z = predict_pair(sections[z], sections[before])[0]
            in_plane = predict_pair(sections[min(z + 1, n - 1)], sections[z])[1:]
        else:
            along_z, *in_plane = predict_pair(sections[before], sections[z])
        home = along_z.T if pose.transpose else along_z
        codes[0, z] = home[:: -1 if upside["y"] else 1, :: -1 if upside["x"] else 1]
        codes[1:, z] = carried_home(np.stack(in_plane), pose, shape)
    inner = tuple(slice(axis.pad, axis.pad + axis.length) for axis in axes)
    return codes[(slice(None), slice(None), *inner)]


def mean_codes(parts):
    """Mean of the codes of poses, rounded; the first row and column repeat the third."""
    total = sum(part.astype(int) for part in parts)
    codes = ((total + len(parts) // 2) // len(parts)).astype(np.uint8)
    codes[1, :, 0] = codes[1, :, 2]
    codes[2, :, :, 0] = codes[2, :, :, 2]
    return codes
