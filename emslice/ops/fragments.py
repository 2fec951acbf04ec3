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
from emslice.geometry.boxes import Roi, show
from emslice.ops.distance import capped_distance

RADIUS = 64
"""Voxels: the cap of the distance, and the halo of the stage."""


@dataclass(frozen=True)
class Fragments:
    """Fragments of a box, numbered densely; row 0 of ``ids`` is the background."""

    labels: NDArray[np.int32]
    """Shape (Z, Y, X). Index into ``ids``; 0 is masked."""

    ids: NDArray[np.uint64]
    """Shape (N + 1,), ascending. Linear index of the root in the domain plus one; ids[0] = 0."""


def make_fragments(
    affinity: NDArray[np.uint8],
    roi: Roi | None = None,
    domain: Roi | None = None,
    radius: int = RADIUS,
    workers: int = 1,
) -> Fragments:
    """Rainfall fragments of every section of a box, whose faces count as the volume's.

    Parameters
    ----------
    affinity : uint8, shape (3, Z, Y, X)
        Codes, channels z, y, x.
    roi, domain : Roi, optional
        Where the box lies in the whole volume; by default it is the whole volume.
    radius : int
        Cap of the distance, 1 to 255 voxels.
    workers : int
        Threads, each on sections of its own.

    Notes
    -----
    7 bytes a voxel besides the affinities: labels, and per thread one section's heights.
    """
    shape = affinity.shape[1:]
    roi = roi or Roi((0, 0, 0), shape)
    domain = domain or Roi((0, 0, 0), roi.end)
    if tuple(roi.shape) != shape:
        raise GeometryError(f"affinities have shape {shape}, their box {tuple(roi.shape)}.")
    if not domain.contains(roi):
        raise GeometryError(f"box {show(roi)} leaves its domain {show(domain)}.")
    if not 1 <= radius <= 255:
        raise GeometryError(f"fragments.radius: {radius} is not within 1 to 255 voxels.")
    labels = np.empty(shape, np.int32)

    def work(z: int) -> NDArray[np.int64]:
        return _label_section(affinity[:, z], radius, labels[z])

    with ThreadPoolExecutor(workers) as pool:
        roots = list(pool.map(work, range(shape[0])))
    counts = np.array([len(r) for r in roots], np.int64)
    if counts.sum() >= 2**31 - 1:
        raise GeometryError(f"{counts.sum()} fragments in one box; use smaller blocks.")
    for z, first in enumerate(np.cumsum(counts) - counts):
        _shift(labels[z], np.int32(first))
    return Fragments(labels, _domain_ids(roots, roi, domain))


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
    affinity: NDArray[np.uint8], radius: int, labels: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Number the fragments of one section from 1; their roots as linear indices in it."""
    height = section_heights(affinity[1], affinity[2], radius)
    height[~affinity.any(axis=0)] = 0
    point_uphill(height, labels)
    return _follow(height, labels)


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
def _follow(height: NDArray[np.uint16], labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Replace pointers by the number of their root, counted from 1 in linear order."""
    target, level = labels.reshape(-1), height.reshape(-1)
    n_roots = 0
    for p in range(target.size):
        if level[p] == 0:
            target[p] = 0
        elif target[p] == p:
            n_roots += 1
    roots = np.empty(n_roots, np.int64)
    n_roots = 0
    # A known number is stored as its negative: pointers are never negative.
    for p in range(target.size):
        if level[p] != 0 and target[p] == p:
            roots[n_roots] = p
            n_roots += 1
            target[p] = -n_roots
    for p in range(target.size):
        if level[p] == 0:
            continue
        q = p
        while target[q] >= 0:
            q = target[q]
        number = target[q]
        q = p
        while target[q] >= 0:
            following = target[q]
            target[q] = number
            q = following
    for p in range(target.size):
        target[p] = -target[p]
    return roots


@njit(nogil=True, cache=True)
def _shift(labels: NDArray[np.int32], first: np.int32) -> None:
    """Count on from the fragments of earlier sections."""
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] > 0:
                labels[y, x] += first


def _domain_ids(roots: list[NDArray[np.int64]], roi: Roi, domain: Roi) -> NDArray[np.uint64]:
    """Ids of roots that are given section by section as linear indices in the section."""
    _, height, width = (int(n) for n in domain.shape)
    low_z, low_y, low_x = (int(n) for n in roi.begin)
    ids = [np.zeros(1, np.uint64)]
    for z, root in enumerate(roots):
        y, x = root // int(roi.shape[2]) + low_y, root % int(roi.shape[2]) + low_x
        ids.append((((z + low_z) * height + y) * width + x + 1).astype(np.uint64))
    return np.concatenate(ids)
