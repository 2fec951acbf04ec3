"""Where the paths that left their block end.

Each exit is a voxel one beyond a block, and so on a face of the block that owns it, which knows
where its path goes on: to a root, or to another exit. Links only go uphill, so there are no cycles.
A node of the octree follows the links inside its box; what leads out of the box is an exit of the
node, and its parent's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emslice.geometry.boxes import Roi
from emslice.ops.faces import AXES, Faces, join_faces, layer
from emslice.ops.lut import Lut


@dataclass(frozen=True)
class Stitch:
    """What a node of the octree knows of its paths."""

    links: Lut
    """Exits of the children -> root, or exit of this node."""

    exits: NDArray[np.uint64]
    """Ascending. Ids of voxels outside the node where paths leave it."""

    faces: Faces
    """Of the node, with labels as far as the node knows them."""


def leaf(exits: NDArray[np.uint64], faces: Faces) -> Stitch:
    """A block: nothing to follow."""
    nothing = np.zeros(0, np.uint64)
    return Stitch(Lut(nothing, nothing), np.sort(exits), faces)


def join(children: Sequence[Stitch], box: Roi, domain: Roi) -> Stitch:
    """A node from its children: links followed inside the box."""
    exits = np.unique(np.concatenate([child.exits for child in children]))
    places = _places(exits, domain)
    ends = _labels_at(exits, places, [child.faces for child in children])
    while True:  # pointer doubling: as many rounds as the logarithm of the longest chain
        place = np.minimum(np.searchsorted(exits, ends), max(0, len(exits) - 1))
        further = np.where(exits[place] == ends, ends[place], ends) if len(exits) else ends
        if np.array_equal(further, ends):
            break
        ends = further
    # Not "what stayed as it is": the voxel of an exit may itself be the root.
    outside = exits[~_inside(places, box)]
    links = Lut(exits, ends)
    faces = join_faces([child.faces for child in children], box).relabelled(links)
    return Stitch(links, outside, faces)


def _places(ids: NDArray[np.uint64], domain: Roi) -> NDArray[np.int64]:
    """Voxels z, y, x of ids, shape (3, N)."""
    _, height, width = (int(n) for n in domain.shape)
    z, rest = np.divmod(ids.astype(np.int64) - 1, height * width)
    return np.stack([z, *np.divmod(rest, width)])


def _inside(places: NDArray[np.int64], box: Roi) -> NDArray[np.bool_]:
    low = np.array([int(n) for n in box.begin])[:, None]
    high = np.array([int(n) for n in box.end])[:, None]
    return np.logical_and.reduce((places >= low) & (places < high))


def _labels_at(
    ids: NDArray[np.uint64], places: NDArray[np.int64], faces: Sequence[Faces]
) -> NDArray[np.uint64]:
    """Label that a face shows at each voxel; the voxel's own id where no face has it."""
    found = ids.copy()
    for child in faces:
        for axis in AXES:
            for plane, last in ((child.lower[axis], False), (child.upper[axis], True)):
                where = layer(child.box, axis, last)
                shown = _inside(places, where)
                local = places[:, shown] - np.array([int(n) for n in where.begin])[:, None]
                found[shown] = plane[tuple(local)]
    return found


def resolve_down(links: Lut, above: Lut) -> Lut:
    """Exits of the children -> roots, once the node's own exits are known."""
    return Lut(links.fragments, above.apply(links.segments))
