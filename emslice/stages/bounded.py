"""What a node decides, in memory if its rows fit there, and down the ladder otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emslice.ledger.rows import iter_rows, load_rows, stored_size
from emslice.ledger.scratch import ScratchStore
from emslice.ops.ladder import SHARE, Climbed, climb_down
from emslice.ops.linkage import Linkage
from emslice.ops.open_graph import OpenGraph, decide, join_graphs
from emslice.ops.row_tables import ROW_BYTES, empty_rows, sizes_of


def decide_stored(
    below: Sequence[Path],
    across: Iterator[OpenGraph],
    touching: NDArray[np.uint64],
    lowest: int,
    linkage: Linkage,
    memory: int,
    scratch: Path,
) -> Climbed:
    """Merge best first as far as the node can know.

    Parameters
    ----------
    below : sequence of paths
        Rows that the children left.
    across : iterator of OpenGraph
        Rows across their common faces.
    memory : int
        Bytes that the graph may take.
    scratch : Path
        A folder that may be filled; whoever reads the rest of the result removes it.
    """
    held, size = [empty_rows()], sum(stored_size(path) for path in below)
    while size <= memory:
        more = next(across, None)
        if more is None:
            graph = join_graphs([*held, *(load_rows(path) for path in below)], linkage)
            decided = decide(graph, touching, lowest, linkage)
            return Climbed(decided.merges, iter([decided.rest]), decided.open_names)
        held.append(more)
        size += int(sizes_of(more).sum())
    tables = chain(held, across)
    del held
    return _climb(below, tables, touching, lowest, linkage, memory, scratch)


def _climb(
    below: Sequence[Path],
    across: Iterator[OpenGraph],
    touching: NDArray[np.uint64],
    lowest: int,
    linkage: Linkage,
    memory: int,
    scratch: Path,
) -> Climbed:
    """The same from disk, in a folder that an attempt that was killed may have filled."""
    shutil.rmtree(scratch, ignore_errors=True)
    store, size = ScratchStore(scratch, linkage), sum(stored_size(path) for path in below)
    for table in across:
        store.append(table, ["across"], [0])
        size += int(sizes_of(table).sum())
    batch = max(1, memory // SHARE // ROW_BYTES)
    stored = (table for path in below for table in iter_rows(path, batch))
    sources = chain(stored, store.pieces("across"))
    return climb_down(store, sources, touching, lowest, linkage, memory, size)
