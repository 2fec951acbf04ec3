"""Fragments that a block makes alone, section by section, with a method of one's choice.

A section's method gives any labels above 0. They become fragments of the usual form: numbered in
the order of their first voxels, with that voxel's linear index in the domain, plus one, as id. Ids
are unique over all blocks and need no counters. Nothing leaves the block, so there are no exits.

**Not invariant to blocks**: a fragment ends at the block's faces along y and x. What comes after,
region graph and agglomeration, is exact for the fragments given.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emslice.errors import GeometryError
from emslice.geometry.boxes import Roi
from emslice.ops.fragments import Fragments

LabelSection = Callable[[NDArray[np.uint8]], NDArray[np.integer]]
"""Codes of a section, shape (3, Y, X), to labels from 0 to at most Y * X; the kernel masks."""


def fragments_of_sections(
    label: LabelSection,
    affinity: NDArray[np.uint8],
    block: Roi | None = None,
    domain: Roi | None = None,
    workers: int = 1,
) -> Fragments:
    """Fragments of every section of a block, seen alone.

    Parameters
    ----------
    label : function
        Makes the labels of one section. A voxel without any affinity is masked afterwards.
    affinity : uint8, shape (3, Z, Y, X)
        Codes of the block.
    block, domain : Roi, optional
        Where the codes lie in the whole volume; by default they are the whole volume.
    """
    shape = affinity.shape[1:]
    block = block or Roi((0, 0, 0), shape)
    domain = domain or Roi((0, 0, 0), block.end)
    if tuple(block.shape) != shape:
        raise GeometryError(f"affinities have shape {shape}, their box {tuple(block.shape)}.")
    labels = np.empty(shape, np.int32)

    def work(z: int) -> NDArray[np.int64]:
        section = affinity[:, z]
        made = np.ascontiguousarray(label(section), dtype=np.int64)
        made[~section.any(axis=0)] = 0
        return _number_by_first(made, labels[z])

    with ThreadPoolExecutor(workers) as pool:
        firsts = list(pool.map(work, range(shape[0])))
    before = np.cumsum([0, *map(len, firsts)])
    if before[-1] >= 2**31 - 1:
        raise GeometryError(f"{before[-1]} fragments in one block; use smaller blocks.")
    for z in range(shape[0]):
        np.add(labels[z], np.int32(before[z]), out=labels[z], where=labels[z] > 0)
    return Fragments(labels, _ids(firsts, block, domain), int(before[-1]))


@njit(nogil=True, cache=True)
def _number_by_first(made, labels):  # type: ignore[no-untyped-def]
    """Number labels 1, 2 ... as they are met; linear indices of the voxels that met them."""
    number = np.zeros(made.max() + 1, np.int32)
    first = np.empty(made.max() + 1, np.int64)
    n = 0
    for y in range(made.shape[0]):
        for x in range(made.shape[1]):
            old = made[y, x]
            if old > 0 and number[old] == 0:
                first[n] = y * made.shape[1] + x
                n += 1
                number[old] = n
            labels[y, x] = number[old]
    return first[:n].copy()


def _ids(firsts: list[NDArray[np.int64]], block: Roi, domain: Roi) -> NDArray[np.uint64]:
    """Linear indices in the domain, plus one, of voxels given by section; 0 comes first."""
    _, height, width = (int(n) for n in domain.shape)
    ids = [np.zeros(1, np.int64)]
    for z, first in enumerate(firsts, start=int(block.begin[0])):
        y, x = np.divmod(first, int(block.shape[2]))
        ids.append(((z * height + y + int(block.begin[1])) * width) + x + int(block.begin[2]) + 1)
    return np.concatenate(ids).astype(np.uint64)
