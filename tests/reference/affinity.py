"""Slow twin of ``emslice/ops/affinity.py``: one voxel at a time, in float64."""

import numpy as np


def cosine(a, b):
    """Cosine of two vectors, clipped to [0, 1]; 0 if one of them is zero."""
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.clip(a @ b / length, 0, 1)) if length else 0.0


def pair_affinity_by_voxel(before, here):
    """Affinities (3, Y, X) of two embeddings (C, Y, X) in the order z, y, x.

    The comparison that is missing in the first line is that of the third line, of the second if
    there are two lines, and 1 if there is one.
    """
    _, height, width = here.shape
    out = np.ones((3, height, width))
    for y, x in np.ndindex(height, width):
        out[0, y, x] = cosine(before[:, y, x], here[:, y, x])
        j, i = y or min(2, height - 1), x or min(2, width - 1)
        if j > 0:
            out[1, y, x] = cosine(here[:, j, x], here[:, j - 1, x])
        if i > 0:
            out[2, y, x] = cosine(here[:, y, i], here[:, y, i - 1])
    return out


def _linked(shape, offsets):
    """(channel, voxel, its neighbour) of every link that lies inside."""
    for k, offset in enumerate(offsets):
        for voxel in np.ndindex(*shape):
            other = tuple(i + o for i, o in zip(voxel, offset, strict=True))
            if all(0 <= i < n for i, n in zip(other, shape, strict=True)):
                yield k, voxel, other


def volume_affinity_by_voxel(embedding, offsets):
    """Affinities (K, Z, Y, X) of an embedding (C, Z, Y, X); 0 where the neighbour is outside."""
    shape = embedding.shape[1:]
    out = np.zeros((len(offsets), *shape))
    for k, voxel, other in _linked(shape, offsets):
        out[(k, *voxel)] = cosine(embedding[:, *voxel], embedding[:, *other])
    return out


def boundary_affinity_by_voxel(boundary, offsets):
    """The same of a map of membranes (Z, Y, X)."""
    out = np.zeros((len(offsets), *boundary.shape))
    for k, voxel, other in _linked(boundary.shape, offsets):
        out[(k, *voxel)] = 1 - max(boundary[voxel], boundary[other])
    return out
