"""Rows of open graphs as Parquet tables, whole or in batches: what nodes hand to their parents.

A row has its pair, the pair and contacts of its tie, its statistics, and its histogram as two
lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emslice.errors import StorageError
from emslice.ledger.files import write_aside
from emslice.ops.open_graph import OpenGraph
from emslice.ops.row_tables import ROW_BYTES, RUN_BYTES, empty_rows, join_rows

GROUP = 2**16
"""Rows that are written, and so read, at a time."""

SINGLE = ("u", "v", "tie_u", "tie_v", "tie_contacts", "number", "total")


def save_rows(path: Path, parts: Iterable[OpenGraph]) -> int:
    """Write tables one after the other, atomically; returns the number of rows."""
    n, schema = 0, _table(empty_rows()).schema
    with (
        write_aside(path) as partial,
        pq.ParquetWriter(partial, schema, compression="zstd") as file,
    ):
        for part in parts:
            file.write_table(_table(part), GROUP)
            n += len(part)
    return n


def iter_rows(path: Path, n_rows: int) -> Iterator[OpenGraph]:
    """Tables of at most ``n_rows`` rows that `save_rows` wrote.

    Raises
    ------
    StorageError
        Missing or damaged file.
    """
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(max(1, min(n_rows, GROUP)), use_threads=False):
                yield _rows(pa.Table.from_batches([batch]))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise StorageError(f"{path}: not a readable table of rows: {error}") from error


def load_rows(path: Path) -> OpenGraph:
    """All rows that `save_rows` wrote."""
    return join_rows(list(iter_rows(path, GROUP)))


def stored_size(path: Path) -> int:
    """Bytes of memory that the rows of a file take while their graph is merged.

    Raises
    ------
    StorageError
        Missing or damaged file.
    """
    try:
        facts = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"{path}: not a readable table of rows: {error}") from error
    runs = 0
    for i in range(facts.num_row_groups):
        group = facts.row_group(i)
        columns = (group.column(k) for k in range(group.num_columns))
        runs += sum(c.num_values for c in columns if c.path_in_schema.startswith("codes"))
    return facts.num_rows * ROW_BYTES + runs * RUN_BYTES


def _table(rows: OpenGraph) -> pa.Table:
    offsets = pa.array(rows.run_start.astype(np.int32))
    columns = (*rows.pairs.T, *rows.tie_pairs.T, rows.tie_contacts, rows.number, rows.total)
    single = dict(zip(SINGLE, (np.ascontiguousarray(c) for c in columns), strict=True))
    codes = pa.ListArray.from_arrays(offsets, pa.array(rows.run_code))
    lengths = pa.ListArray.from_arrays(offsets, pa.array(rows.run_number))
    return pa.table({**single, "codes": codes, "lengths": lengths})


def _rows(table: pa.Table) -> OpenGraph:
    single = {name: table[name].to_numpy() for name in SINGLE}
    codes, lengths = (table[name].combine_chunks() for name in ("codes", "lengths"))
    sizes = codes.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return OpenGraph(
        pairs=_pairs(single["u"], single["v"]),
        tie_pairs=_pairs(single["tie_u"], single["tie_v"]),
        tie_contacts=single["tie_contacts"],
        number=single["number"],
        total=single["total"],
        run_start=np.concatenate([[0], np.cumsum(sizes)]),
        run_code=codes.flatten().to_numpy(),
        run_number=lengths.flatten().to_numpy(),
    )


def _pairs(u: NDArray[np.uint64], v: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.stack([u, v], axis=1)
