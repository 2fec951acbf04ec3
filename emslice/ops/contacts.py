"""Rows of the region graph by fragment id: what blocks exchange.

The same statistics as in ``region_graph.py``, with ids of the domain in place of a block's dense
numbers. Rows of one pair seen in two places `combine`; after stitching, `resolve` gives exits
their fragment's id, drops rows that became one fragment and combines rows that became one pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.ops.histograms import Histograms, add_histograms, histograms_of
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

    histograms: Histograms = field(default_factory=Histograms)
    """Of their codes; of no rows if nobody needs them."""

    def __len__(self) -> int:
        return len(self.pairs)


def contacts_of(graph: RegionGraph, ids: NDArray[np.uint64]) -> Contacts:
    """Rows of a block by id; ``ids`` is indexed by dense number."""
    return _summed(
        [Contacts(ids[graph.edges], graph.contacts, graph.total, graph.highest, graph.histograms)]
    )


def contacts_across(
    lower: NDArray[np.uint64],
    upper: NDArray[np.uint64],
    codes: NDArray[np.uint8],
    histograms: bool = False,
) -> Contacts:
    """Rows across a face: ``upper`` holds the later voxels, and the codes, which are theirs."""
    touching = (lower != upper) & (lower != 0) & (upper != 0)
    code = codes[touching]
    pairs, one = np.stack([lower[touching], upper[touching]], axis=1), np.ones(len(code), np.int64)
    own = histograms_of(np.arange(len(code)), code, one, len(code)) if histograms else Histograms()
    return _summed([Contacts(pairs, one, code.astype(np.int64), code, own)])


def combine(parts: Sequence[Contacts]) -> Contacts:
    """One table of rows seen in several places: numbers, sums and histograms add, maxima do not."""
    if parts:
        return _summed(parts)
    nothing = np.zeros(0, np.int64)
    return Contacts(np.zeros((0, 2), np.uint64), nothing, nothing, np.zeros(0, np.uint8))


def resolve(rows: Contacts, lut: Lut) -> Contacts:
    """Rows between whole fragments: exits get their fragment's id, rows within one are dropped."""
    return _summed([replace(rows, pairs=lut.apply(rows.pairs))])


def _summed(parts: Sequence[Contacts]) -> Contacts:
    """Order each pair, sort, drop rows within one fragment, combine equal pairs."""
    pairs = np.sort(np.concatenate([part.pairs for part in parts]), axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    order = order[pairs[order, 0] != pairs[order, 1]]
    ordered = pairs[order]
    is_first = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)][: len(ordered)]
    first = np.flatnonzero(is_first)
    into = np.full(len(pairs), -1)
    into[order] = np.cumsum(is_first) - 1

    def reduced(operation: np.ufunc, name: str) -> NDArray[Any]:
        column = np.concatenate([getattr(part, name) for part in parts])[order]
        return operation.reduceat(column, first) if len(first) else column

    return Contacts(
        ordered[first],
        reduced(np.add, "contacts"),
        reduced(np.add, "total"),
        reduced(np.maximum, "highest"),
        add_histograms([part.histograms for part in parts], into, len(first)),
    )
