"""Slow twin of ``emslice/ops/fragments.py``: the definition, one voxel at a time."""

import itertools

import numpy as np


def squared_distance(inside, radius):
    """``min(squared distance to the nearest voxel that is not inside, radius ** 2)``, brute force.

    ``inside`` has shape (Y, X); what lies beyond the array is never outside.
    """
    out = np.zeros(inside.shape, int)
    holes = [tuple(p) for p in np.argwhere(~inside)]
    for y, x in np.ndindex(inside.shape):
        nearest = min(((y - b) ** 2 + (x - a) ** 2 for b, a in holes), default=radius**2)
        out[y, x] = min(nearest, radius**2)
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
