"""How far down the ladder one step can go: the cut, and the components above it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emslice.ops.forest import (
    NEVER,
    components_at,
    fill_bins,
    longest_prefix,
    meeting_times,
    plant,
    spanning,
)
from emslice.ops.row_tables import Keys, best_first, join_keys

FOREST_BYTES = 200
"""Of memory, a row of the forest while it grows."""


@dataclass(frozen=True)
class Components:
    """Nodes that rows above a cut connect, in bins of whole components."""

    cut: Keys | None
    """The one row that is the best of those left out; None if none is."""

    nodes: NDArray[np.int64]
    """Shape (N,), ascending."""

    of: NDArray[np.int64]
    """Shape (N,). Component of each node; -1 for a node that is alone."""

    weight: NDArray[np.int64]
    """Shape (C,). Bytes of the rows inside each component."""

    bins: NDArray[np.int64]
    """Shape (C,). Bin of each component."""

    @property
    def n_bins(self) -> int:
        """Bins in all."""
        return int(self.bins.max(initial=-1)) + 1

    def bins_of(self, pairs: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Bin of each row that has both ends in one component; -1 for others."""
        place, known = places_of(pairs, self.nodes)
        a, b = self.of[place].T
        inside = known & (a == b) & (a >= 0)
        return np.where(inside, self.bins[np.where(inside, a, 0)], -1)


def places_of(
    pairs: NDArray[np.uint64], nodes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Places of both ends of each row among nodes, shape (E, 2), and whether both are there."""
    ends = pairs.astype(np.int64)
    place = np.minimum(np.searchsorted(nodes, ends), len(nodes) - 1)
    return place, (nodes[place] == ends).all(axis=1)


def grow_forest(forest: Keys | None, more: Keys, n_nodes: int, limit: int) -> Keys:
    """The best ``limit`` rows of a spanning forest of what was seen, best first.

    A row belongs to it iff rows before it in the order of keys do not connect its ends; for the
    best ``limit`` of them that is known without those that come later.
    """
    if forest is not None and len(forest.score) == limit:
        last, contacts = forest.score[-1], forest.tie_contacts[-1]
        ties = (more.score == last) & (more.tie_contacts >= contacts)
        more = more.take((more.score > last) | ties)  # the others come after it
    both = more if forest is None else join_keys([forest, more])
    both = both.take(best_first(both))
    joins = spanning(both.pairs.astype(np.int64), n_nodes)
    return both.take(np.flatnonzero(joins)[:limit])


def components(forest: Keys, rows: Iterable[Keys], is_all: bool, limit: int) -> Components:
    """Cut as low as no component has more than ``limit`` bytes inside, but below one row at least.

    Parameters
    ----------
    forest : Keys
        Best first.
    rows : iterable of Keys
        All rows, in any order.
    is_all : bool
        Whether there are no more rows in the forest; otherwise its last one is left out.
    """
    nodes, compact = np.unique(forest.pairs.astype(np.int64), return_inverse=True)
    compact = compact.reshape(-1, 2)
    parent, time = plant(compact, len(nodes))
    grows = np.zeros(len(compact), np.int64)
    for keys in rows:
        place, known = places_of(keys.pairs, nodes)
        times = meeting_times(parent, time, place[known])
        met = times < NEVER
        np.add.at(grows, times[met], keys.size[known][met])
    end = longest_prefix(compact, len(nodes), grows, limit)
    if not is_all:
        end = min(end, len(compact) - 1)
    top = components_at(parent, time, end)
    tops = np.unique(top[compact[:end, 0]])
    place = np.minimum(np.searchsorted(tops, top), len(tops) - 1)
    of = np.where(tops[place] == top, place, -1)
    weight = np.zeros(len(tops), np.int64)
    np.add.at(weight, of[compact[:end, 0]], grows[:end])
    cut = None if end == len(compact) else forest.take(np.array([end]))
    return Components(cut, nodes, of, weight, fill_bins(weight, limit))
