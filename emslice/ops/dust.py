"""Dust: small segments at a threshold join a large neighbour, in one pass.

A segment is *small* if it has fewer than ``min_size`` voxels, else *large*. A small one joins the
large neighbour to which its contacts add up to the largest sum of codes; ties go to more contacts,
then to the smaller id. Small segments attract nobody, so there are no chains and no order. Numbers
of voxels, contacts and sums add over blocks, so a node of the octree settles a small segment as
soon as it has all its contacts and knows its neighbours, and hands the others to its parent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emslice.errors import ConfigError
from emslice.ops.contacts import Contacts, combine
from emslice.ops.histograms import Histograms
from emslice.ops.lut import Lut


@dataclass(frozen=True)
class DustRule:
    """What is small, and what becomes of the small ones that touch no large one."""

    min_size: int
    """Voxels of the smallest large segment; 0: there are no small ones."""

    alone: str = "drop"
    """Whether those without a large neighbour become 0 (drop) or stay (keep)."""

    def __post_init__(self) -> None:
        if self.alone not in ("drop", "keep"):
            raise ConfigError(f"dust.alone: {self.alone!r} is unknown; choose drop or keep.")
        if self.min_size < 0:
            raise ConfigError(f"dust.min_size: {self.min_size} is below 0; 0 switches dust off.")


@dataclass(frozen=True)
class Sizes:
    """Voxels of segments, or of their parts inside a box."""

    names: NDArray[np.uint64]
    """Shape (N,), ascending, without 0."""

    voxels: NDArray[np.int64]
    """Shape (N,), positive."""


@dataclass(frozen=True)
class Settled:
    """What a node settled, and what it hands to its parent."""

    targets: Lut
    """Small segment -> the large one that it joins, or 0."""

    sizes: Sizes
    """Of the segments that go up: they touch an open face, or have a row that goes up."""

    rows: Contacts
    """Between two of them, of which one at least may be small."""

    @property
    def joined(self) -> int:
        """Small segments that join a large one."""
        return int((self.targets.segments != 0).sum())

    @property
    def dropped(self) -> int:
        """Small segments that become 0."""
        return int((self.targets.segments == 0).sum())


def add_up(ids: NDArray[np.uint64], voxels: NDArray[np.int64]) -> Sizes:
    """Voxels of each id, of which some are there several times and others are 0."""
    order = np.argsort(ids, kind="stable")
    order = order[np.searchsorted(ids, 1, sorter=order) :]
    names, first = np.unique(ids[order], return_index=True)
    voxels = voxels[order]
    return Sizes(names, np.add.reduceat(voxels, first) if len(first) else voxels)


def segment_rows(rows: Contacts, lut: Lut) -> Contacts:
    """Rows between segments from those between fragments, without histograms."""
    pairs = lut.apply(rows.pairs)
    return combine([replace(rows, pairs=pairs, histograms=Histograms())])


def join_sizes(parts: Sequence[Sizes]) -> Sizes:
    """Voxels in a box from those in the boxes that fill it."""
    names = np.concatenate([part.names for part in parts])
    return add_up(names, np.concatenate([part.voxels for part in parts]))


def settle(rows: Contacts, sizes: Sizes, touching: NDArray[np.uint64], rule: DustRule) -> Settled:
    """Settle the small segments of which a node knows enough.

    Parameters
    ----------
    rows
        Between segments: all of those that the node's children did not settle.
    sizes
        Of the same segments, as far as they lie in the node.
    touching : uint64
        Segments on a face behind which the node has not seen.
    """
    names, ends = sizes.names, np.searchsorted(sizes.names, rows.pairs)
    large = sizes.voxels >= rule.min_size  # voxels only add: large in part is large
    unsure = ~large & np.isin(names, touching)
    small = ~large & ~unsure
    settled = small.copy()
    settled[ends[unsure[ends[:, ::-1]]]] = False  # a neighbour may yet turn out large
    joined, target = _best_large(rows, ends, settled, large)
    becomes = names.copy()
    if rule.alone == "drop":
        becomes[settled] = 0
    becomes[joined] = names[target]
    changed = np.flatnonzero(becomes != names)
    done = settled[ends].any(axis=1) | large[ends].all(axis=1) | small[ends].all(axis=1)
    left = np.flatnonzero(~done)
    upward = np.isin(names, touching)
    upward[ends[left]] = True
    return Settled(
        Lut(names[changed], becomes[changed]),
        Sizes(names[upward], sizes.voxels[upward]),
        _some(rows, left),
    )


def _best_large(
    rows: Contacts,
    ends: NDArray[np.int64],
    settled: NDArray[np.bool_],
    large: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of the settled segments that have a large neighbour, and of the best of these."""
    one, other = np.concatenate([ends, ends[:, ::-1]]).T
    row = np.tile(np.arange(len(ends)), 2)
    wanted = settled[one] & large[other]
    one, other, row = one[wanted], other[wanted], row[wanted]
    # Places ascend with ids.
    order = np.lexsort((other, -rows.contacts[row], -rows.total[row], one))
    small, first = np.unique(one[order], return_index=True)
    return small, other[order][first]


def _some(rows: Contacts, wanted: NDArray[np.int64]) -> Contacts:
    return Contacts(
        rows.pairs[wanted], rows.contacts[wanted], rows.total[wanted], rows.highest[wanted]
    )
