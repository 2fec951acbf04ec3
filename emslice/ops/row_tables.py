"""Rows of open graphs as tables: cut, laid end to end, compared, united.

Nothing here knows where rows are kept; what is done with tables too large for memory is in
``ladder.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emslice.ops.histograms import add_histograms, histograms_of
from emslice.ops.linkage import Linkage, hash_pairs, tie_order
from emslice.ops.merging import RANK_BITS, keys_of
from emslice.ops.open_graph import OpenGraph, rows_of

ROW_BYTES = 260
"""Of memory, a row while its graph is merged, beside its runs (docs/results/ladder.md)."""

RUN_BYTES = 60
"""Of memory, a run of a histogram while its graph is merged."""


class Keys(NamedTuple):
    """What orders rows, without their statistics."""

    pairs: NDArray[np.uint64]
    """Shape (E, 2)."""

    score: NDArray[np.int64]
    """Shape (E,). Fraction of 2^24."""

    tie_contacts: NDArray[np.int64]
    """Shape (E,)."""

    tie_pairs: NDArray[np.uint64]
    """Shape (E, 2)."""

    size: NDArray[np.int64]
    """Shape (E,). Bytes of memory that each row takes while its graph is merged."""

    def take(self, index: NDArray[Any]) -> Keys:
        """The keys of some rows, by number or mask."""
        return Keys(*(column[index] for column in self))


def join_keys(parts: Sequence[Keys]) -> Keys:
    """Keys of several tables, one after the other."""
    return Keys(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def empty_rows() -> OpenGraph:
    """A table of no rows."""
    none, pairs = np.zeros(0, np.int64), np.zeros((0, 2), np.uint64)
    return OpenGraph(
        pairs, pairs, none, none, none, np.zeros(1, np.int64), np.zeros(0, np.uint8), none
    )


def sizes_of(rows: OpenGraph) -> NDArray[np.int64]:
    """Bytes of memory that each row takes while its graph is merged."""
    return ROW_BYTES + RUN_BYTES * np.diff(rows.run_start)


def row_keys(rows: OpenGraph, linkage: Linkage) -> Keys:
    """Keys of rows."""
    order, statistics = np.arange(len(rows), dtype=np.int32), rows_of(rows, linkage)
    score = keys_of(linkage.name == "mean", linkage.quantile, order, statistics) >> RANK_BITS
    return Keys(rows.pairs, score, rows.tie_contacts, rows.tie_pairs, sizes_of(rows))


def best_first(keys: Keys) -> NDArray[np.int64]:
    """Rows in the order in which agglomeration takes them."""
    order = tie_order(keys.tie_pairs, keys.tie_contacts).astype(np.int64)
    return order[np.argsort(-keys.score[order], kind="stable")]


def n_better_ties(rows: OpenGraph, pair: NDArray[np.uint64], contacts: int) -> int:
    """Rows before a base pair in the order of ties (`linkage.tie_order`)."""
    u, v = rows.tie_pairs[:, 0], rows.tie_pairs[:, 1]
    mine, theirs = hash_pairs(pair[:1], pair[1:])[0], hash_pairs(u, v)
    smaller = (u < pair[0]) | ((u == pair[0]) & (v < pair[1]))
    before = (theirs < mine) | ((theirs == mine) & smaller)
    better = (rows.tie_contacts > contacts) | ((rows.tie_contacts == contacts) & before)
    return int(better.sum())


def take_rows(rows: OpenGraph, index: NDArray[Any]) -> OpenGraph:
    """Some rows, by number or mask."""
    index = np.flatnonzero(index) if index.dtype == np.bool_ else index
    size = np.diff(rows.run_start)[index]
    start = np.concatenate([[0], np.cumsum(size)])
    source = np.arange(start[-1]) + np.repeat(rows.run_start[index] - start[:-1], size)
    return OpenGraph(
        rows.pairs[index], rows.tie_pairs[index], rows.tie_contacts[index], rows.number[index],
        rows.total[index], start, rows.run_code[source], rows.run_number[source],
    )  # fmt: skip


def join_rows(parts: Sequence[OpenGraph]) -> OpenGraph:
    """Several tables, one after the other; equal pairs stay as they are."""
    parts = [part for part in parts if len(part)]
    if len(parts) <= 1:
        return parts[0] if parts else empty_rows()
    start = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(p.run_start) for p in parts]))])
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in OpenGraph.__dataclass_fields__
        if name != "run_start"
    }
    return OpenGraph(run_start=start, **columns)


def sort_rows(rows: OpenGraph) -> OpenGraph:
    """Rows sorted by pair."""
    return take_rows(rows, np.lexsort((rows.pairs[:, 1], rows.pairs[:, 0])))


def union_equal(rows: OpenGraph) -> OpenGraph:
    """Rows of pairs that became one by merges: statistics add, the worst tie is kept.

    Sorted by pair, none twice.
    """
    if not len(rows):
        return rows
    place = np.empty(len(rows), np.int64)
    place[tie_order(rows.tie_pairs, rows.tie_contacts)] = np.arange(len(rows))
    order = np.lexsort((-place, rows.pairs[:, 1], rows.pairs[:, 0]))
    pairs = rows.pairs[order]
    new = np.r_[True, (pairs[1:] != pairs[:-1]).any(axis=1)]
    first = np.flatnonzero(new)
    into = np.empty(len(rows), np.int64)
    into[order] = np.cumsum(new) - 1
    row = np.repeat(np.arange(len(rows)), np.diff(rows.run_start))
    own = histograms_of(row, rows.run_code, rows.run_number, len(rows))
    runs = add_histograms([own], into, len(first))
    return OpenGraph(
        pairs=pairs[first],
        tie_pairs=rows.tie_pairs[order[first]],
        tie_contacts=rows.tie_contacts[order[first]],
        number=np.add.reduceat(rows.number[order], first),
        total=np.add.reduceat(rows.total[order], first),
        run_start=runs.start,
        run_code=runs.code,
        run_number=runs.number.astype(np.int64),
    )
