"""Rows outside memory: buckets of tables, and a buffer in front of them.

What keeps the buckets is somebody else's: a dictionary in tests, Parquet files in
``ledger/rows.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emslice.ops.open_graph import OpenGraph
from emslice.ops.row_tables import Keys, join_rows, sizes_of, take_rows


class RowStore(Protocol):
    """Tables by bucket, in the order in which they came. A bucket that nobody filled is empty."""

    def append(self, bucket: str, rows: OpenGraph) -> None:
        """Put a table behind those of a bucket."""

    def pieces(self, bucket: str) -> Iterator[OpenGraph]:
        """Tables of a bucket, one by one."""

    def keys(self, bucket: str) -> Keys:
        """Keys of all rows of a bucket, in order."""

    def drop(self, bucket: str) -> None:
        """Forget a bucket."""


def load(store: RowStore, bucket: str) -> OpenGraph:
    """All rows of a bucket."""
    return join_rows(list(store.pieces(bucket)))


class Spread:
    """Distributes rows to numbered buckets, through a buffer of ``limit`` bytes."""

    def __init__(self, store: RowStore, prefix: str, limit: int) -> None:
        self._store, self._prefix, self._limit = store, prefix, limit
        self._held: list[tuple[OpenGraph, NDArray[np.int64]]] = []
        self._bytes = 0

    def add(self, rows: OpenGraph, number: NDArray[np.int64]) -> None:
        """Send each row to the bucket of its number."""
        if len(rows):
            self._held.append((rows, number))
            self._bytes += int(sizes_of(rows).sum())
        if self._bytes > self._limit:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        for number, rows in self._sorted():
            self._store.append(self.bucket(number), rows)
        self._held, self._bytes = [], 0

    def tables(self, n: int) -> Iterator[OpenGraph]:
        """Tables 0 to n - 1, which are dropped as they pass; nothing is written if n is 1."""
        if n > 1:
            self.flush()
        for number in range(n):
            held = [rows for rows, _ in self._held]
            yield join_rows([*self._store.pieces(self.bucket(number)), *held])
            self._store.drop(self.bucket(number))

    def bucket(self, number: int) -> str:
        """Name of a bucket."""
        return f"{self._prefix}/{number}"

    def _sorted(self) -> Iterator[tuple[int, OpenGraph]]:
        if not self._held:
            return
        rows = join_rows([rows for rows, _ in self._held])
        numbers = np.concatenate([number for _, number in self._held])
        order = np.argsort(numbers, kind="stable")
        here, first = np.unique(numbers[order], return_index=True)
        for number, part in zip(here, np.split(order, first[1:]), strict=True):
            yield int(number), take_rows(rows, part)
