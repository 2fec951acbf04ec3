"""Rows of the region graph by fragment id: what blocks exchange.

The same statistics as in ``region_graph.py``, with ids of the domain in place of a block's dense
numbers. Rows of one pair seen in two places `combine`; after stitching, `resolve` gives exits
their fragment's id, drops rows that became one fragment and combines rows that became one pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.ops.lut import Lut
from emslice.ops.region_graph import RegionGraph


@dataclass(frozen=True)
class Contacts:
    """Pairs of touching fragments; E rows, sorted by pair, none twice."""

    pairs: NDArray[np.uint64]
    """Shape (E, 2), u < v."""

    contacts: NDArray[np.int64]
    """Shape (E,). Pairs of voxels, one offset apart, in u and v."""

    total: NDArray[np.int64]
    """Shape (E,). Sum of their codes."""

    highest: NDArray[np.uint8]
    """Shape (E,). Largest of their codes."""

    def __len__(self) -> int:
        return len(self.pairs)


def contacts_of(graph: RegionGraph, ids: NDArray[np.uint64]) -> Contacts:
    """Rows of a block by id; ``ids`` is indexed by dense number."""
    return _summed(ids[graph.edges], graph.contacts, graph.total, graph.highest)


def contacts_across(
    lower: NDArray[np.uint64], upper: NDArray[np.uint64], codes: NDArray[np.uint8]
) -> Contacts:
    """Rows across a face: ``upper`` holds the later voxels, and the codes, which are theirs."""
    touching = (lower != upper) & (lower != 0) & (upper != 0)
    code = codes[touching]
    pairs = np.stack([lower[touching], upper[touching]], axis=1)
    return _summed(pairs, np.ones(len(pairs), np.int64), code.astype(np.int64), code)


def combine(parts: Sequence[Contacts]) -> Contacts:
    """One table of rows seen in several places: counts and sums add, maxima take the maximum."""
    if not parts:
        nothing = np.zeros(0, np.int64)
        return Contacts(np.zeros((0, 2), np.uint64), nothing, nothing, np.zeros(0, np.uint8))
    return _summed(*(np.concatenate([getattr(p, n) for p in parts]) for n in _COLUMNS))


def resolve(rows: Contacts, lut: Lut) -> Contacts:
    """Rows between whole fragments: exits get their fragment's id, rows within one are dropped."""
    pairs = lut.apply(rows.pairs)
    kept = pairs[:, 0] != pairs[:, 1]
    return _summed(*(column[kept] for column in (pairs, rows.contacts, rows.total, rows.highest)))


_COLUMNS = ("pairs", "contacts", "total", "highest")


def _summed(
    pairs: NDArray[np.uint64],
    contacts: NDArray[np.int64],
    total: NDArray[np.int64],
    highest: NDArray[np.uint8],
) -> Contacts:
    """Order each pair, sort, and combine equal pairs."""
    pairs = np.sort(pairs, axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    pairs = pairs[order]
    first = np.flatnonzero(np.r_[True, (pairs[1:] != pairs[:-1]).any(axis=1)][: len(pairs)])

    def reduced(operation: np.ufunc, column: NDArray[Any]) -> NDArray[Any]:
        return operation.reduceat(column[order], first) if len(first) else column[:0]

    return Contacts(
        pairs[first], reduced(np.add, contacts), reduced(np.add, total),
        reduced(np.maximum, highest),
    )  # fmt: skip
