"""The part of a region graph that a block cannot decide, and its way up the octree.

A row is a base pair or the union of several; it carries its statistics, and the tie key of its
worst base pair, in full: places in an order mean nothing to another block. A pair seen by two
blocks is a base pair in both, since both of its fragments touch a face and were open from the
start; its rows `combine`. Unions happen in agglomeration only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emslice.ops.agglomerate import run_best_first
from emslice.ops.contacts import Contacts
from emslice.ops.histograms import add_histograms, histograms_of
from emslice.ops.linkage import Linkage, histogram_rows, mean_rows, tie_order
from emslice.ops.merge_tree import MergeTree
from emslice.ops.merging import RANK_MASK, Rows, gather_runs


@dataclass(frozen=True)
class OpenGraph:
    """Rows by cluster name; E rows sorted by pair, none twice."""

    pairs: NDArray[np.uint64]
    """Shape (E, 2), u < v: names, which are smallest fragments."""

    tie_pairs: NDArray[np.uint64]
    """Shape (E, 2). Base pair whose tie key the row has."""

    tie_contacts: NDArray[np.int64]
    """Shape (E,). Contacts of that base pair."""

    number: NDArray[np.int64]
    """Shape (E,). Contacts, or base pairs (quantile_max), behind each row."""

    total: NDArray[np.int64]
    """Shape (E,). Sum of codes (mean)."""

    run_start: NDArray[np.int64]
    """Shape (E + 1,). First run of each row's histogram; all 0 without histograms."""

    run_code: NDArray[np.uint8]
    """Shape (R,). Code of each run; those of a row ascend."""

    run_number: NDArray[np.int64]
    """Shape (R,). Length of each run."""

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class Decided:
    """What a node of the octree decided, and what it hands to its parent."""

    merges: MergeTree
    rest: OpenGraph
    open_names: NDArray[np.uint64]
    """Ascending. Fragments and clusters that wait; contagion included."""


def base_graph(rows: Contacts, linkage: Linkage) -> OpenGraph:
    """Rows of base pairs."""
    n, runs = len(rows), rows.histograms
    number, total, one = rows.contacts, np.zeros(n, np.int64), np.ones(n, np.int64)
    start, code, length = np.zeros(n + 1, np.int64), rows.highest[:0], one[:0]
    if linkage.name == "mean":
        total = rows.total
    elif linkage.needs_histograms:
        assert len(runs.size) == n, "no histograms were made"
        start, code, length = runs.start, runs.code, runs.number.astype(np.int64)
    else:
        number, start, code, length = one, np.arange(n + 1), rows.highest, one
    return OpenGraph(
        pairs=rows.pairs,
        tie_pairs=rows.pairs,
        tie_contacts=rows.contacts,
        number=number,
        total=total,
        run_start=start,
        run_code=code,
        run_number=length,
    )


def join_graphs(graphs: Sequence[OpenGraph], linkage: Linkage) -> OpenGraph:
    """One graph from those of several blocks: equal pairs, which are base pairs, combine."""
    pairs = np.concatenate([g.pairs for g in graphs])
    if not len(pairs):
        return graphs[0]
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    changes = (pairs[order][1:] != pairs[order][:-1]).any(axis=1)
    first = np.flatnonzero(np.r_[True, changes])

    def column(name: str) -> NDArray[np.int64]:
        joined: NDArray[np.int64] = np.concatenate([getattr(g, name) for g in graphs])[order]
        return joined

    adds = linkage.name != "quantile_max"  # of which one base pair stays one, with one maximum
    if adds:
        into = np.empty(len(order), np.int64)
        into[order] = np.cumsum(np.r_[True, changes]) - 1
        start, code, length = _added_runs(graphs, into, len(first))
    else:
        start, code, length = _larger_maxima(graphs, order, first)
    number = np.add if adds else np.maximum
    return OpenGraph(
        pairs=pairs[order[first]],
        tie_pairs=column("tie_pairs")[first].astype(np.uint64),
        tie_contacts=np.add.reduceat(column("tie_contacts"), first),
        number=number.reduceat(column("number"), first),
        total=np.add.reduceat(column("total"), first),
        run_start=start,
        run_code=code,
        run_number=length,
    )


_Runs = tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]


def _added_runs(graphs: Sequence[OpenGraph], into: NDArray[np.int64], n_rows: int) -> _Runs:
    """Histograms of the joined rows: those of a base pair seen twice add."""
    sizes = [np.diff(g.run_start) for g in graphs]
    parts = [
        histograms_of(np.repeat(np.arange(len(g)), size), g.run_code, g.run_number, len(g))
        for g, size in zip(graphs, sizes, strict=True)
    ]
    joined = add_histograms(parts, into, n_rows)
    return joined.start, joined.code, joined.number.astype(np.int64)


def _larger_maxima(
    graphs: Sequence[OpenGraph], order: NDArray[np.int64], first: NDArray[np.int64]
) -> _Runs:
    """Histograms of the joined rows; of a base pair seen twice, the larger maximum."""
    code = np.concatenate([g.run_code for g in graphs])
    if not len(code):
        return np.zeros(len(first) + 1, np.int64), code, np.zeros(0, np.int64)
    sizes = np.concatenate([np.diff(g.run_start) for g in graphs])
    begin = np.cumsum(sizes) - sizes
    largest = np.maximum.reduceat(code[begin[order]], first)
    seen = np.diff(first, append=len(order))
    kept = order[first]
    size = sizes[kept]
    start = np.r_[0, np.cumsum(size)]
    source = np.arange(start[-1]) + np.repeat(begin[kept] - start[:-1], size)
    codes = code[source]
    twice = seen > 1
    codes[start[:-1][twice]] = largest[twice]
    return start, codes, np.concatenate([g.run_number for g in graphs])[source]


def decide(
    graph: OpenGraph, touching: NDArray[np.uint64], lowest: int, linkage: Linkage
) -> Decided:
    """Merge best first as far as the node can know.

    Parameters
    ----------
    touching : uint64
        Fragments on a face behind which the node has not seen.
    lowest : int
        Lowest score at which a merge is made, a fraction of 2^24.
    """
    nodes = np.unique(graph.pairs)
    edges = np.searchsorted(nodes, graph.pairs).astype(np.int32)
    order = tie_order(graph.tie_pairs, graph.tie_contacts)
    waiting, rows = np.isin(nodes, touching), rows_of(graph, linkage)
    end = run_best_first(edges, rows, order, waiting, lowest, linkage)
    left = np.flatnonzero(end.key >= 0)
    left = left[waiting[end.ends[left]].all(axis=1)]
    names = nodes[end.name[end.ends[left]]]
    rest = _rest(graph, rows, left, names, order[RANK_MASK - (end.key[left] & RANK_MASK)], linkage)
    waits = np.union1d(touching, nodes[end.name[waiting & (end.name >= 0)]])
    by_child = np.argsort(end.merges[:, 0])
    child, parent = nodes[end.merges[by_child]].T
    return Decided(MergeTree(child, parent, end.scores[by_child], lowest), rest, waits)


def rows_of(graph: OpenGraph, linkage: Linkage) -> Rows:
    """Statistics as agglomeration works on them: own copies."""
    if linkage.name == "mean":
        return mean_rows(graph.number, graph.total)
    return histogram_rows(graph.number, graph.run_start, graph.run_code, graph.run_number)


def _rest(
    graph: OpenGraph,
    rows: Rows,
    left: NDArray[np.int64],
    names: NDArray[np.uint64],
    tie: NDArray[np.int32],
    linkage: Linkage,
) -> OpenGraph:
    """Rows that go up, sorted by pair; ``tie`` is the row of the input whose tie key each has."""
    names = np.sort(names.reshape(-1, 2), axis=1)
    order = np.lexsort((names[:, 1], names[:, 0]))
    left, tie = left[order], tie[order]
    number, total = rows.pair[left, 0], np.zeros(len(left), np.int64)
    start, code, length = np.zeros(len(left) + 1, np.int64), graph.run_code[:0], number[:0]
    if linkage.name == "mean":
        total = rows.pair[left, 1]
    else:
        start, code, length = gather_runs(left, rows)
    return OpenGraph(
        pairs=names[order],
        tie_pairs=graph.tie_pairs[tie],
        tie_contacts=graph.tie_contacts[tie],
        number=number,
        total=total,
        run_start=start,
        run_code=code,
        run_number=length,
    )
