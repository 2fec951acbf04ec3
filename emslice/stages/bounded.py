"""What a node decides, in memory if its rows fit there, and down the ladder otherwise."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emslice.ledger.rows import iter_rows, load_rows, stored_size
from emslice.ledger.scratch import ScratchStore
from emslice.ops.ladder import SHARE, Climbed, Step, climb_down
from emslice.ops.linkage import Linkage
from emslice.ops.open_graph import OpenGraph, decide, join_graphs
from emslice.ops.row_tables import ROW_BYTES, empty_rows, sizes_of

_log = logging.getLogger(__name__)


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
    stored = sum(stored_size(path) for path in below)
    held, size = _hold(across, memory - stored)
    if stored + size <= memory:
        graph = join_graphs([*held, *(load_rows(path) for path in below)], linkage)
        decided = decide(graph, touching, lowest, linkage)
        return Climbed(decided.merges, iter([decided.rest]), decided.open_names)
    shutil.rmtree(scratch, ignore_errors=True)  # an attempt that was killed may have filled it
    store = ScratchStore(scratch, linkage)
    size = _put(store, "across", held) + _put(store, "across", across)
    del held

    def report(step: Step) -> None:
        moved = store.read_bytes, store.written_bytes
        _log.debug("%s: %s, bytes read, written: %s", scratch, step, moved)

    batch = max(1, memory // SHARE // ROW_BYTES)
    rows = (table for path in below for table in iter_rows(path, batch))
    sources = chain(rows, _take_out(store, "across"))
    return climb_down(store, sources, touching, lowest, linkage, memory, stored + size, report)


def _hold(tables: Iterator[OpenGraph], room: int) -> tuple[list[OpenGraph], int]:
    """Tables until they take more than ``room`` bytes, or there are no more; and what they take."""
    held, size = [empty_rows()], 0
    while size <= room and (table := next(tables, None)) is not None:
        held.append(table)
        size += _size(table)
    return held, size


def _put(store: ScratchStore, bucket: str, tables: Iterable[OpenGraph]) -> int:
    """Write tables to a bucket; the bytes of memory that they would take."""
    size = 0
    for table in tables:
        store.append(table, [bucket], [0])
        size += _size(table)
    return size


def _take_out(store: ScratchStore, bucket: str) -> Iterator[OpenGraph]:
    """Tables of a bucket, which is dropped behind them."""
    yield from store.pieces(bucket)
    store.drop(bucket)


def _size(table: OpenGraph) -> int:
    return int(sizes_of(table).sum())
