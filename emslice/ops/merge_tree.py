"""All merges of a volume, and the segmentation at any threshold from them.

Scores never rise along the tree, so the merges at or above a threshold are those that a run at
that threshold would have made: cutting the tree at T *is* the run at T, for every T down to the
lowest threshold kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emslice.errors import ConfigError
from emslice.ops.agglomerate import Agglomeration
from emslice.ops.linkage import SCALE, integer_threshold
from emslice.ops.lut import Lut


@dataclass(frozen=True)
class MergeTree:
    """Merges of fragments by id, sorted by child; parent < child, every child once."""

    child: NDArray[np.uint64]
    """Shape (M,), ascending. Smallest fragment of the cluster that gives up its name."""

    parent: NDArray[np.uint64]
    """Shape (M,). Smallest fragment of the cluster that it joins."""

    score: NDArray[np.int32]
    """Shape (M,). Fraction of 2^24."""

    lowest: int
    """Score down to which merges were made."""

    def cut(self, threshold: float) -> Lut:
        """Fragment to segment at a threshold; a segment's id is its smallest fragment's.

        Raises
        ------
        ConfigError
            Below the lowest threshold that the tree was made for.
        """
        least = integer_threshold(threshold)
        if least < self.lowest:
            raise ConfigError(
                f"agglomeration.threshold: {threshold:g} is below the lowest threshold kept, "
                f"{self.lowest / SCALE:g} (agglomeration.lowest_threshold). Agglomerate again."
            )
        keep = self.score >= least
        child, segment = self.child[keep], self.parent[keep]
        # Parents are smaller than their children: going up the table, theirs are known.
        _climb(segment, np.searchsorted(child, segment), child)
        return Lut(child, segment)

    def of(self, ids: NDArray[np.uint64]) -> MergeTree:
        """The merges on the way up from some ids, as far as this tree goes; no others."""
        climbed = np.isin(self.child, ids)
        _mark_above(climbed, np.searchsorted(self.child, self.parent), self.child, self.parent)
        return MergeTree(
            self.child[climbed], self.parent[climbed], self.score[climbed], self.lowest
        )


def join_trees(trees: Sequence[MergeTree]) -> MergeTree:
    """One tree from several with one lowest score, no child of which is in two."""
    child = np.concatenate([tree.child for tree in trees])
    order = np.argsort(child)
    return MergeTree(
        child[order],
        np.concatenate([tree.parent for tree in trees])[order],
        np.concatenate([tree.score for tree in trees])[order],
        trees[0].lowest,
    )


def merge_tree(agglomeration: Agglomeration, ids: NDArray[np.uint64], lowest: int) -> MergeTree:
    """Tree of one block's merges, dense numbers replaced by ids."""
    order = np.argsort(agglomeration.merges[:, 0])
    merges = ids[agglomeration.merges[order]]
    return MergeTree(merges[:, 0].copy(), merges[:, 1].copy(), agglomeration.scores[order], lowest)


@njit(nogil=True, cache=True)
def _climb(segment, place, child):  # type: ignore[no-untyped-def]
    """Replace parents by roots in place; ``place`` is where a parent would stand among children."""
    for i in range(segment.size):
        if place[i] < child.size and child[place[i]] == segment[i]:
            segment[i] = segment[place[i]]


@njit(nogil=True, cache=True)
def _mark_above(climbed, place, child, parent):  # type: ignore[no-untyped-def]
    """Mark parents of marked children in place; ``place`` as in `_climb`."""
    for i in range(climbed.size - 1, -1, -1):  # parents stand before their children
        if climbed[i] and place[i] < child.size and child[place[i]] == parent[i]:
            climbed[place[i]] = True
