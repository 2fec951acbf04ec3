"""Slow twin of ``emslice/ops/fragments.py``: the definition, one voxel at a time."""

import itertools

import numpy as np


def squared_distance(inside, radius):
    """``min(squared distance to the nearest voxel that is not inside, radius ** 2)``, brute force.

    ``inside`` has any number of axes; what lies beyond the array is never outside.
    """
    out = np.zeros(inside.shape, int)
    holes = np.argwhere(~inside)
    for p in np.ndindex(inside.shape):
        nearest = ((holes - p) ** 2).sum(axis=1).min(initial=radius**2)
        out[p] = min(nearest, radius**2)
    return out


def height_of(codes, d2, p, width):
    """The lexicographic height of voxel p of a section; ``codes`` has shape (3, Y, X)."""
    total = int(codes[1][p]) + int(codes[2][p])
    return (int(d2[p]), total if d2[p] == 0 else 0, p[0] * width + p[1])


def pointers(codes, radius):
    """Highest of every voxel and its 8 neighbours: dict of (y, x) to (y, x), masked left out."""
    total = codes[1].astype(int) + codes[2]
    d2 = squared_distance(total > 255, radius)
    height, width = total.shape
    alive = {p for p in np.ndindex(height, width) if codes[:, p[0], p[1]].any()}
    chosen = {}
    for y, x in sorted(alive):
        around = itertools.product((y - 1, y, y + 1), (x - 1, x, x + 1))
        chosen[y, x] = max(
            (q for q in around if q in alive), key=lambda q: height_of(codes, d2, q, width)
        )
    return chosen


def fragment_ids(affinity, begin=(0, 0, 0), domain=None, radius=64):
    """Fragment id of every voxel: linear index of its root in the domain plus one; 0 is masked.

    ``affinity`` has shape (3, Z, Y, X); ``begin`` is where it lies in a volume of shape ``domain``.
    """
    domain = domain or tuple(b + n for b, n in zip(begin, affinity.shape[1:], strict=True))
    ids = np.zeros(affinity.shape[1:], np.uint64)
    for z in range(affinity.shape[1]):
        chosen = pointers(affinity[:, z], radius)
        for p in chosen:
            root = p
            while chosen[root] != root:
                root = chosen[root]
            place = (z + begin[0], root[0] + begin[1], root[1] + begin[2])
            ids[z][p] = np.ravel_multi_index(place, domain) + 1
    return ids


def volume_fragment_ids(affinity, begin=(0, 0, 0), domain=None, radius=32):
    """The same with 26 neighbours and all three channels, for isotropic voxels."""
    shape = affinity.shape[1:]
    domain = domain or tuple(b + n for b, n in zip(begin, shape, strict=True))
    total = affinity.sum(axis=0, dtype=int)
    d2 = squared_distance(total > 382, radius)
    alive = {p for p in np.ndindex(shape) if affinity[:, *p].any()}

    def height_of(p):
        return (d2[p], total[p] if d2[p] == 0 else 0, np.ravel_multi_index(p, shape))

    def highest(p):
        around = itertools.product(*((n - 1, n, n + 1) for n in p))
        return max((q for q in around if q in alive), key=height_of)

    chosen = {p: highest(p) for p in alive}
    ids = np.zeros(shape, np.uint64)
    for p in alive:
        root = p
        while chosen[root] != root:
            root = chosen[root]
        place = tuple(b + n for b, n in zip(begin, root, strict=True))
        ids[p] = np.ravel_multi_index(place, domain) + 1
    return ids
