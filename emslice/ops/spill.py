"""Rows outside memory: buckets of rows, and a buffer in front of them.

What keeps the buckets is somebody else's: a dictionary in tests, files in ``ledger/scratch.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emslice.ops.open_graph import OpenGraph
from emslice.ops.row_tables import Keys, join_rows, sizes_of, take_rows


class RowStore(Protocol):
    """Rows by bucket, in the order in which they came. A bucket that nobody filled is empty."""

    def append(self, rows: OpenGraph, buckets: Sequence[str], begin: Sequence[int]) -> None:
        """Put rows behind those of their buckets: from ``begin[i]`` on they go to the i-th."""

    def load(self, bucket: str) -> OpenGraph:
        """All rows of a bucket."""

    def pieces(self, bucket: str) -> Iterator[OpenGraph]:
        """The same in tables as they came, one by one."""

    def keys(self, bucket: str) -> Keys:
        """Keys of all rows of a bucket, in order."""

    def drop(self, bucket: str) -> None:
        """Forget a bucket."""


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
        if not self._held:
            return
        rows = join_rows([rows for rows, _ in self._held])
        numbers = np.concatenate([number for _, number in self._held])
        order = np.argsort(numbers, kind="stable")
        here, begin = np.unique(numbers[order], return_index=True)
        buckets = [self.bucket(number) for number in here.tolist()]
        self._store.append(take_rows(rows, order), buckets, begin.tolist())
        self._held, self._bytes = [], 0

    def tables(self, n: int) -> Iterator[OpenGraph]:
        """Tables 0 to n - 1, which are dropped as they pass; nothing is written if n is 1."""
        if n > 1:
            self.flush()
        for number in range(n):
            held = [rows for rows, _ in self._held]
            yield join_rows([self._store.load(self.bucket(number)), *held])
            self._store.drop(self.bucket(number))

    def bucket(self, number: int) -> str:
        """Name of a bucket."""
        return f"{self._prefix}/{number}"
