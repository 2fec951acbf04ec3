"""A watershed that does not see the blocks: every voxel points to its highest neighbour.

With the codes ``A`` of the affinities along y and x, in one section:

    inside(p) = A_y(p) + A_x(p) > 255
    d2(p)     = min(squared distance to the nearest voxel that is not inside, radius ** 2)
    height(p) = (d2(p), A_y(p) + A_x(p) if d2(p) == 0 else 0, linear index of p)

compared lexicographically among a voxel and its 8 neighbours. The index makes the order total, so
the forest of pointers is unique and needs affinities within ``radius`` only. A fragment's id is the
linear index of its root in the domain, plus one. A voxel without any affinity (0 in all three
channels) is masked: it is 0 and nothing points to it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from emslice.errors import GeometryError
from emslice.geometry.boxes import Roi, show, within
from emslice.ops.distance import capped_distance
from emslice.ops.fragments_3d import label_box
from emslice.ops.rainfall import (
    add_boundary,
    find_inside,
    label_ends,
    mask_heights,
    point_uphill,
    shift_labels,
)

RADIUS = 64
"""Voxels: the cap of the distance, and the halo of the stage."""


def fragment_halo(radius: int, dimensions: int = 2) -> tuple[int, int, int]:
    """Voxels z, y, x that a block reads beyond its faces."""
    return (radius if dimensions == 3 else 0, radius, radius)


@dataclass(frozen=True)
class Fragments:
    """Fragments of a block, numbered densely; row 0 of ``ids`` is the background.

    A path that leaves the block ends at its *exit*, one voxel outside, and whoever owns that voxel
    knows its fragment. Numbers above ``n_roots`` are exits. A whole volume has none.
    """

    labels: NDArray[np.int32]
    """Shape (Z, Y, X). Index into ``ids``; 0 is masked."""

    ids: NDArray[np.uint64]
    """Shape (N + 1,). Linear index in the domain plus one: of the roots, ascending, then of the
    exits; ids[0] = 0."""

    n_roots: int
    """Fragments whose root lies in the block."""

    @property
    def exits(self) -> NDArray[np.uint64]:
        """Shape (N - n_roots,). Ids of the exits, no two equal."""
        return self.ids[self.n_roots + 1 :]

    @property
    def voxels(self) -> NDArray[np.int64]:
        """Shape (N + 1,). Of each id, in the block."""
        found = np.zeros(len(self.ids), np.int64)
        for section in self.labels:  # 8 bytes a voxel each
            found += np.bincount(section.ravel(), minlength=len(found))
        return found


def make_fragments(
    affinity: NDArray[np.uint8],
    read: Roi | None = None,
    domain: Roi | None = None,
    radius: int = RADIUS,
    workers: int = 1,
    block: Roi | None = None,
    dimensions: int = 2,
) -> Fragments:
    """Rainfall fragments of every section of a block, or of the block as a whole.

    Parameters
    ----------
    affinity : uint8, shape (3, Z, Y, X)
        Codes of the read box, channels z, y, x.
    read, domain : Roi, optional
        Where the codes lie in the whole volume; by default they are the whole volume.
    radius : int
        Cap of the distance, 1 to 255 voxels.
    workers : int
        Threads, each on sections of its own.
    block : Roi, optional
        What is labelled, by default the read box. Between the block's faces and those of the read
        box lies `fragment_halo`, or the face is one of the volume's.
    dimensions : 2 or 3
        3 is ``ops/fragments_3d.py``.

    Notes
    -----
    Besides the affinities: labels, and per thread 15 bytes a voxel of one section; with 3
    dimensions labels and 3 bytes a voxel of the read box.
    """
    shape = affinity.shape[1:]
    read = read or Roi((0, 0, 0), shape)
    domain = domain or Roi((0, 0, 0), read.end)
    block = block or read
    if tuple(read.shape) != shape:
        raise GeometryError(f"affinities have shape {shape}, their box {tuple(read.shape)}.")
    for inner, outer in ((read, domain), (block, read)):
        if not outer.contains(inner):
            raise GeometryError(f"box {show(inner)} leaves {show(outer)}.")
    if not 1 <= radius <= 255:
        raise GeometryError(f"fragments.radius: {radius} is not within 1 to 255 voxels.")
    if dimensions not in (2, 3):
        raise GeometryError(f"fragments.dimensions: {dimensions} is neither 2 nor 3.")
    labels = np.empty(tuple(int(n) for n in block.shape), np.int32)
    label = _label_sections if dimensions == 2 else label_box
    roots, exits = label(affinity, radius, within(block, read), labels, workers)
    places = [_domain_ids(part, read, domain) for part in (roots, exits)]
    return Fragments(labels, np.concatenate([np.zeros(1, np.uint64), *places]), len(roots))


def _label_sections(
    affinity: NDArray[np.uint8],
    radius: int,
    core: tuple[slice, slice, slice],
    labels: NDArray[np.int32],
    workers: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Label a core section by section; linear indices of roots and exits in the read box."""
    depth = labels.shape[0]
    cuts = np.linspace(0, depth, min(workers, depth) + 1).astype(int)

    def work(cut: tuple[int, int]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        space = _Space(affinity.shape[2:])
        return [
            _label_section(affinity[:, core[0].start + z], radius, core[1:], labels[z], space)
            for z in range(*cut)
        ]

    with ThreadPoolExecutor(workers) as pool:
        found = list(chain.from_iterable(pool.map(work, pairwise(cuts.tolist()))))
    n_roots, n_exits = ([len(part[i]) for part in found] for i in (0, 1))
    if sum(n_roots) + sum(n_exits) >= 2**31 - 1:
        raise GeometryError(f"{sum(n_roots)} fragments in one block; use smaller blocks.")
    firsts = np.cumsum([0, *n_roots]), np.cumsum([sum(n_roots), *n_exits])
    plane = affinity.shape[2] * affinity.shape[3]
    for z in range(depth):
        shift_labels(labels[z], np.int32(firsts[0][z]), np.int32(firsts[1][z]))
        for places in found[z]:
            places += (core[0].start + z) * plane
    roots, exits = (np.concatenate([part[i] for part in found]) for i in (0, 1))
    return roots, exits


def section_heights(
    along_y: NDArray[np.uint8], along_x: NDArray[np.uint8], radius: int
) -> NDArray[np.uint16]:
    """Heights without their index, one number each: 1 + sum on the boundary, 256 + d2 inside."""
    height = np.empty(along_y.shape, np.uint16)
    _fill_heights(along_y, along_x, radius, np.empty(along_y.shape, np.bool_), height)
    return height


def _fill_heights(
    along_y: NDArray[np.uint8],
    along_x: NDArray[np.uint8],
    radius: int,
    inside: NDArray[np.bool_],
    height: NDArray[np.uint16],
) -> None:
    """Fill ``height``; and ``inside``, on the way."""
    find_inside(along_y, along_x, inside)
    capped_distance(inside, radius, height)
    add_boundary(along_y, along_x, height)


class _Space:
    """What a thread works in, 15 bytes a voxel of a section: fresh memory costs page faults."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.inside = np.empty(shape, np.bool_)
        self.height = np.empty(shape, np.uint16)
        size = self.inside.size + 1
        self.target, self.number, self.waiting = (np.empty(size, np.int32) for _ in range(3))


def _label_section(
    affinity: NDArray[np.uint8],
    radius: int,
    core: tuple[slice, slice],
    labels: NDArray[np.int32],
    space: _Space,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the roots of a core from 1 up and its exits from -1 down; their linear indices."""
    height = space.height
    _fill_heights(affinity[1], affinity[2], radius, space.inside, height)
    mask_heights(affinity, height)
    # Where a voxel points to depends on its neighbours: the core and one voxel around it.
    ring = tuple(
        slice(max(0, s.start - 1), min(n, s.stop + 1))
        for s, n in zip(core, height.shape, strict=True)
    )
    top, left = (s.start - r.start for s, r in zip(core, ring, strict=True))
    seen = np.ascontiguousarray(height[ring])
    target = space.target[: seen.size].reshape(seen.shape)
    point_uphill(seen, target)
    found = label_ends(seen, target, top, left, labels, space.number, space.waiting)

    def in_section(places: NDArray[np.int64]) -> NDArray[np.int64]:
        y, x = np.divmod(places, seen.shape[1])
        return (y + ring[0].start) * height.shape[1] + x + ring[1].start

    return in_section(found[0]), in_section(found[1])


def _domain_ids(places: NDArray[np.int64], read: Roi, domain: Roi) -> NDArray[np.uint64]:
    """Ids of voxels given as linear indices in the read box."""
    lines, x = np.divmod(places, int(read.shape[2]))
    z, y = np.divmod(lines, int(read.shape[1]))
    _, height, width = (int(n) for n in domain.shape)
    low_z, low_y, low_x = (int(n) for n in read.begin)
    ids = (((z + low_z) * height + y + low_y) * width) + x + low_x + 1
    return ids.astype(np.uint64)
