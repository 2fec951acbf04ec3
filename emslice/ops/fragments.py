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

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emslice.errors import GeometryError
from emslice.geometry.boxes import Roi, show, within
from emslice.ops.distance import capped_distance
from emslice.ops.fragments_3d import label_box

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
    Besides the affinities: labels, and per thread one section's heights; with 3 dimensions labels
    and 3 bytes a voxel of the read box.
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

    def work(z: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        section = affinity[:, core[0].start + z]
        return _label_section(section, radius, core[1:], labels[z])

    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(work, range(labels.shape[0])))
    n_roots, n_exits = ([len(part[i]) for part in found] for i in (0, 1))
    if sum(n_roots) + sum(n_exits) >= 2**31 - 1:
        raise GeometryError(f"{sum(n_roots)} fragments in one block; use smaller blocks.")
    firsts = np.cumsum([0, *n_roots]), np.cumsum([sum(n_roots), *n_exits])
    plane = affinity.shape[2] * affinity.shape[3]
    for z in range(labels.shape[0]):
        _shift(labels[z], np.int32(firsts[0][z]), np.int32(firsts[1][z]))
        for places in found[z]:
            places += (core[0].start + z) * plane
    roots, exits = (np.concatenate([part[i] for part in found]) for i in (0, 1))
    return roots, exits


def section_heights(
    along_y: NDArray[np.uint8], along_x: NDArray[np.uint8], radius: int
) -> NDArray[np.uint16]:
    """Heights without their index, one number each: 1 + sum on the boundary, 256 + d2 inside."""
    total = along_y.astype(np.uint16) + along_x
    inside = total > 255
    height = np.empty(total.shape, np.uint16)
    capped_distance(inside, radius, height)
    height += 256
    np.copyto(height, total + np.uint16(1), where=~inside)
    return height


def _label_section(
    affinity: NDArray[np.uint8],
    radius: int,
    core: tuple[slice, slice],
    labels: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the roots of a core from 1 up and its exits from -1 down; their linear indices."""
    height = section_heights(affinity[1], affinity[2], radius)
    height[~affinity.any(axis=0)] = 0
    # Where a voxel points to depends on its neighbours: the core and one voxel around it.
    ring = tuple(
        slice(max(0, s.start - 1), min(n, s.stop + 1))
        for s, n in zip(core, height.shape, strict=True)
    )
    top, left = (s.start - r.start for s, r in zip(core, ring, strict=True))
    seen = np.ascontiguousarray(height[ring])
    target = np.empty(seen.shape, np.int32)
    point_uphill(seen, target)
    found = _follow(seen, target, top, left, labels)

    def in_section(places: NDArray[np.int64]) -> NDArray[np.int64]:
        y, x = np.divmod(places, seen.shape[1])
        return (y + ring[0].start) * height.shape[1] + x + ring[1].start

    return in_section(found[0]), in_section(found[1])


@njit(nogil=True, cache=True)
def point_uphill(height: NDArray[np.uint16], target: NDArray[np.int32]) -> None:
    """Linear index of the highest of a voxel and its 8 neighbours; height 0 is never chosen.

    The highest of nine is the highest of three rows' highest of three, so one pass over the
    rows keeps the three last. ``target`` has the shape (Y, X) of ``height``.
    """
    rows, width = height.shape
    best = np.zeros((3, width), np.int64)  # (height, index) packed, per row modulo 3
    key = np.empty(width + 2, np.int64)
    key[0] = key[width + 1] = 0
    for y in range(rows + 1):
        last = best[y % 3]
        if y < rows:
            for x in range(width):
                key[x + 1] = (np.int64(height[y, x]) << 32) | (y * width + x)
            for x in range(width):
                last[x] = max(key[x], key[x + 1], key[x + 2])
        else:
            last[:] = 0
        if y > 0:
            for x in range(width):
                highest = max(best[0, x], best[1, x], best[2, x])
                target[y - 1, x] = np.int32(highest & 0xFFFFFFFF)


@njit(nogil=True, cache=True)
def _follow(height, target, top, left, labels):  # type: ignore[no-untyped-def]
    """Label a core by the end of each path: roots 1, 2 ... and exits -1, -2 ... as they are met.

    ``height`` and ``target`` cover the core and what its voxels may point to; the core begins at
    (top, left) and has the shape of ``labels``. Roots are numbered in linear order.
    """
    rows, width = labels.shape
    full = height.shape[1]
    number = np.zeros(height.size, np.int32)  # 0 is not known yet
    pointer, heights = target.reshape(-1), height.reshape(-1)
    roots, exits = np.empty(labels.size, np.int64), np.empty(2 * (rows + width), np.int64)
    n_roots, n_exits = 0, 0
    for y in range(rows):
        for p in range((y + top) * full + left, (y + top) * full + left + width):
            if pointer[p] == p and heights[p] != 0:
                roots[n_roots] = p
                n_roots += 1
                number[p] = n_roots
    for y in range(rows):  # only the outermost voxels of the core point out of it
        step = 1 if y == 0 or y == rows - 1 else max(1, width - 1)
        for x in range(0, width, step):
            p = (y + top) * full + x + left
            q = pointer[p]
            qy, qx = q // full - top, q % full - left
            outside = qy < 0 or qy >= rows or qx < 0 or qx >= width
            if outside and heights[p] != 0 and number[q] == 0:
                exits[n_exits] = q
                n_exits += 1
                number[q] = -n_exits
    for p in range(number.size):  # two sweeps in the order of memory know the end of most paths
        if number[p] == 0:
            number[p] = number[pointer[p]]
    for p in range(number.size - 1, -1, -1):
        if number[p] == 0:
            number[p] = number[pointer[p]]
    for y in range(rows):
        for x in range(width):
            p = (y + top) * full + x + left
            if heights[p] == 0:
                labels[y, x] = 0
                continue
            q = p
            while number[q] == 0:
                q = pointer[q]
            end = number[q]
            q = p
            while number[q] == 0:
                number[q] = end
                q = pointer[q]
            labels[y, x] = end
    return roots[:n_roots].copy(), exits[:n_exits].copy()


@njit(nogil=True, cache=True)
def _shift(labels, first_root, first_exit):  # type: ignore[no-untyped-def]
    """Count on from earlier sections: roots from one number, exits from another."""
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] > 0:
                labels[y, x] += first_root
            elif labels[y, x] < 0:
                labels[y, x] = first_exit - labels[y, x]


def _domain_ids(places: NDArray[np.int64], read: Roi, domain: Roi) -> NDArray[np.uint64]:
    """Ids of voxels given as linear indices in the read box."""
    lines, x = np.divmod(places, int(read.shape[2]))
    z, y = np.divmod(lines, int(read.shape[1]))
    _, height, width = (int(n) for n in domain.shape)
    low_z, low_y, low_x = (int(n) for n in read.begin)
    ids = (((z + low_z) * height + y + low_y) * width) + x + low_x + 1
    return ids.astype(np.uint64)
