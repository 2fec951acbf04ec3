"""Agglomeration of a graph whose rows do not fit in memory: the result of ``open_graph.decide``.

A step cuts the order of keys (score, then ties). Rows above the cut connect nodes to components,
which are independent: no union between two of them ever rises above the cut (reducibility), and
nothing is merged or opened by a row below it. Each is run down to the cut with all rows that have
both ends inside; then names are replaced, rows that became one pair unite, and the next step
begins. The cut is as low as components stay within the budget.

In memory are arrays with one entry for each node, and at most the budget of rows.
docs/design/0008-ladder.md has the proof and the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emslice.ops.agglomerate import run_best_first
from emslice.ops.forest import rename
from emslice.ops.linkage import SCALE, Linkage, hash_pairs, tie_order
from emslice.ops.merge_tree import MergeTree
from emslice.ops.open_graph import OpenGraph, join_graphs, rows_of
from emslice.ops.row_tables import (
    Keys,
    n_better_ties,
    row_keys,
    sizes_of,
    sort_rows,
    take_rows,
    union_equal,
)
from emslice.ops.rungs import FOREST_BYTES, Components, components, grow_forest
from emslice.ops.spill import RowStore, Spread

SHARE = 4
"""Of the budget, one in so many is a partition of the rows, or a buffer."""

NODE_BYTES = 60
"""Of the budget, a node: what is left is for rows, and that is a quarter at least."""

LEAST_BYTES = 2048
"""Of a partition: below, there would be nothing in most of them."""


@dataclass(frozen=True)
class Step:
    """What a step did, for reports."""

    cut: float
    """Score down to which it went, as an affinity."""

    components: int
    largest: int
    """Bytes of the largest component."""
    loaded: int
    """Bytes of rows inside components."""
    bins: int
    merges: int


@dataclass(frozen=True)
class Climbed:
    """What `decide` gives, the rest as tables sorted by pair, one after the other."""

    merges: MergeTree
    rest: Iterator[OpenGraph]
    open_names: NDArray[np.uint64]


def climb_down(
    store: RowStore,
    sources: Iterable[OpenGraph],
    touching: NDArray[np.uint64],
    lowest: int,
    linkage: Linkage,
    budget: int,
    size: int,
    report: Callable[[Step], None] = lambda step: None,
) -> Climbed:
    """Merge best first with ``budget`` bytes of rows in memory.

    Parameters
    ----------
    store : RowStore
        Empty, but for what ``sources`` reads.
    sources : iterable of OpenGraph
        Rows by name; equal pairs are base pairs.
    size : int
        Bytes of all sources, about.
    """
    ladder = _Ladder(store, min(lowest, SCALE - 1), linkage, budget, size)
    ladder.read(sources, touching)
    while ladder.step(report):
        pass
    merges = ladder.merges()
    waiting = np.union1d(touching, ladder.names[ladder.waiting & ladder.is_alive()])
    return Climbed(replace(merges, lowest=lowest), ladder.rest(), waiting)


class _Ladder:
    """A graph by dense number: place of a name among all names."""

    def __init__(
        self, store: RowStore, lowest: int, linkage: Linkage, budget: int, size: int
    ) -> None:
        self.store, self.lowest, self.linkage, self.budget = store, lowest, linkage, budget
        self.share = max(LEAST_BYTES, budget // SHARE)
        self.n_parts = max(1, -(-size // self.share))
        self.changed = np.ones(self.n_parts, np.bool_)
        self.is_base = True
        self.made: list[tuple[NDArray[np.int64], NDArray[np.int32]]] = []

    def read(self, sources: Iterable[OpenGraph], touching: NDArray[np.uint64]) -> None:
        """Distribute all rows; equal pairs meet in one partition."""
        spread, names = self._spread("rows"), np.zeros(0, np.uint64)
        fresh, n_fresh = [names], 0
        for rows in sources:
            fresh.append(np.unique(rows.pairs))
            n_fresh += len(fresh[-1])
            if n_fresh > len(names):  # not each time: that would be the square of their number
                names = np.unique(np.concatenate([names, *fresh]))
                fresh, n_fresh = [], 0
            spread.add(rows, self._part_of(rows.pairs))
        spread.flush()
        names = np.unique(np.concatenate([names, *fresh]))
        self.names, self.waiting = names, np.isin(names, touching)
        self.budget = max(self.budget // 4, self.budget - NODE_BYTES * len(names))
        self.label = np.arange(len(names))
        self.rest_bytes = np.zeros(len(names), np.int64)

    def is_alive(self) -> NDArray[np.bool_]:
        """Which names are those of a cluster."""
        alive: NDArray[np.bool_] = self.label == np.arange(len(self.label))
        return alive

    def step(self, report: Callable[[Step], None]) -> bool:
        """Go down to the next cut; False if nothing was left to do."""
        forest, limit = None, max(2, self.budget // 3 // FOREST_BYTES)
        for part in range(self.n_parts):
            keys = self._settle(part)
            good = keys.take(keys.score >= self.lowest)
            forest = grow_forest(forest, good, len(self.names), limit)
        self.is_base = False
        if forest is None or not len(forest.score):
            return False
        inner = (self.store.keys(self._bucket(part)) for part in range(self.n_parts))
        found = components(forest, inner, len(forest.score) < limit, self.budget // 4 * 3)
        n_made = self._run(found)
        self._contract(n_made)
        cut = self.lowest if found.cut is None else int(found.cut.score[0])
        largest, loaded = int(found.weight.max()), int(found.weight.sum())
        report(Step(cut / SCALE, len(found.weight), largest, loaded, found.n_bins, n_made))
        return True

    def _settle(self, part: int) -> Keys:
        """Keys of a partition; rows that came to it unite, those that left or are final go."""
        bucket = self._bucket(part)
        if not self.changed[part]:
            return self.store.keys(bucket)
        self.changed[part] = False
        rows = self.store.load(bucket)
        if self.is_base:
            rows = join_graphs([rows], self.linkage)
            pairs = np.searchsorted(self.names, rows.pairs).astype(np.uint64)
            rows = replace(rows, pairs=pairs)
        ends = rows.pairs.astype(np.int64)
        # A row of a name that was given up has been sent on under the new one.
        rows = union_equal(take_rows(rows, (self.label[ends] == ends).all(axis=1)))
        ends = rows.pairs.astype(np.int64)
        final = np.all(self.waiting[ends], axis=1)  # neither end ever merges: the row cannot change
        rest, rows = take_rows(rows, final), take_rows(rows, ~final)
        self.store.drop(bucket)
        if len(rest):
            self.store.append(rest, ["rest"], [0])
            np.add.at(self.rest_bytes, ends[final, 0], sizes_of(rest))
        if len(rows):
            self.store.append(rows, [bucket], [0])
        return row_keys(rows, self.linkage)

    def _run(self, found: Components) -> int:
        """Merge inside components, bin by bin; the number of merges."""
        spread, before = self._spread("inside"), len(self.made)
        for part in range(self.n_parts):
            rows = self.store.load(self._bucket(part))
            bins = found.bins_of(rows.pairs)
            spread.add(take_rows(rows, bins >= 0), bins[bins >= 0])
        for rows in spread.tables(found.n_bins):
            self._merge(rows, found.cut)
        return sum(len(scores) for _, scores in self.made[before:])

    def _merge(self, rows: OpenGraph, cut: Keys | None) -> None:
        """Run whole components down to the cut."""
        nodes, edges = np.unique(rows.pairs.astype(np.int64), return_inverse=True)
        ends = edges.reshape(-1, 2).astype(np.int32)
        order = tie_order(rows.tie_pairs, rows.tie_contacts)
        lowest, n_best = self.lowest, None
        if cut is not None:
            lowest = int(cut.score[0])
            n_best = n_better_ties(rows, cut.tie_pairs[0], int(cut.tie_contacts[0]))
        waiting, statistics = self.waiting[nodes], rows_of(rows, self.linkage)
        end = run_best_first(ends, statistics, order, waiting, lowest, self.linkage, n_best)
        self.waiting[nodes[end.name[waiting & (end.name >= 0)]]] = True
        by_child = np.argsort(end.merges[:, 0])
        merges = nodes[end.merges[by_child]]
        rename(self.label, merges[:, 0], merges[:, 1])
        self.made.append((merges, end.scores[by_child]))

    def _contract(self, n_made: int) -> None:
        """Send rows whose ends have new names to where rows of the same pair are."""
        spread = self._spread("rows")
        for part in range(self.n_parts):
            rows = self.store.load(self._bucket(part))
            ends = rows.pairs.astype(np.int64)
            moved = (self.label[ends] != ends).any(axis=1)
            self.changed[part] |= bool((moved | self.waiting[ends].all(axis=1)).any())
            if moved.any():
                rows, pairs = take_rows(rows, moved), np.sort(self.label[ends[moved]], axis=1)
                across = pairs[:, 0] != pairs[:, 1]
                rows = replace(take_rows(rows, across), pairs=pairs[across].astype(np.uint64))
                parts = self._part_of(self.names[pairs[across]])
                self.changed[parts] = True
                spread.add(rows, parts)
        spread.flush()

    def merges(self) -> MergeTree:
        """All merges by name, sorted by child."""
        merges = np.concatenate([np.zeros((0, 2), np.int64), *(pairs for pairs, _ in self.made)])
        scores = np.concatenate([np.zeros(0, np.int32), *(scores for _, scores in self.made)])
        order = np.argsort(merges[:, 0])
        child, parent = self.names[merges[order]].T
        return MergeTree(child.copy(), parent.copy(), scores[order], self.lowest)

    def rest(self) -> Iterator[OpenGraph]:
        """Rows that go up, by name, in tables of a range of pairs each."""
        begin = np.cumsum(self.rest_bytes) - self.rest_bytes
        range_of, spread = begin // self.share, self._spread("sorted")
        for rows in self.store.pieces("rest"):
            spread.add(rows, range_of[rows.pairs[:, 0].astype(np.int64)])
        for rows in spread.tables(int(range_of.max(initial=-1)) + 1):
            yield sort_rows(replace(rows, pairs=self.names[rows.pairs.astype(np.int64)]))

    def _bucket(self, part: int) -> str:
        return f"rows/{part}"

    def _part_of(self, pairs: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Partition of pairs of names."""
        hashes = hash_pairs(pairs[:, 0], pairs[:, 1])
        return (hashes % np.uint64(self.n_parts)).astype(np.int64)

    def _spread(self, prefix: str) -> Spread:
        return Spread(self.store, prefix, self.share)
