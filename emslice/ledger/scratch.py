"""Rows of a graph that is worked off from disk: a task's own files, never flushed.

Buckets are many and small, so that a file for each would take longer than its content. Rows are
laid one after the other in large segments, whatever their bucket; where those of a bucket lie is
in memory. A segment goes when all buckets that have rows in it are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emslice.errors import StorageError
from emslice.ops.linkage import Linkage
from emslice.ops.open_graph import OpenGraph
from emslice.ops.row_tables import ROW_BYTES, RUN_BYTES, Keys, row_keys

SEGMENT_BYTES = 2**26

ROW = np.dtype(
    [
        *((name, np.uint64) for name in ("u", "v", "tie_u", "tie_v")),
        *((name, np.int64) for name in ("tie_contacts", "number", "total")),
        *((name, np.int32) for name in ("score", "runs")),
    ]
)
RUN = np.dtype([("code", np.uint8), ("number", np.int64)])


class Slice(NamedTuple):
    """Rows of one bucket that lie side by side in a segment, and their runs."""

    segment: int
    row: int
    n_rows: int
    run: int
    n_runs: int


class ScratchStore:
    """A `RowStore` in a folder that belongs to one task; about 64 bytes a row and 9 a run."""

    def __init__(self, folder: Path, linkage: Linkage) -> None:
        self._folder, self._linkage = folder, linkage
        self._slices: dict[str, list[Slice]] = {}
        self._live: dict[int, int] = {}
        self._segment, self._n_rows, self._n_runs = 0, 0, 0
        self.read_bytes, self.written_bytes = 0, 0

    def append(self, rows: OpenGraph, buckets: Sequence[str], begin: Sequence[int]) -> None:
        if not len(rows):
            return
        self._write(rows)
        here, live = self._segment, self._live.get(self._segment, 0)
        for bucket, first, end in zip(buckets, begin, [*begin[1:], len(rows)], strict=True):
            run, last = int(rows.run_start[first]), int(rows.run_start[end])
            piece = Slice(here, self._n_rows + first, end - first, self._n_runs + run, last - run)
            self._slices.setdefault(bucket, []).append(piece)
        self._live[here] = live + len(buckets)
        self._n_rows += len(rows)
        self._n_runs += int(rows.run_start[-1])
        if self._n_rows * ROW.itemsize + self._n_runs * RUN.itemsize > SEGMENT_BYTES:
            self._segment, self._n_rows, self._n_runs = here + 1, 0, 0

    def load(self, bucket: str) -> OpenGraph:
        slices = self._slices.get(bucket, [])
        return _graph(self._rows(slices), self._runs(slices))

    def pieces(self, bucket: str) -> Iterator[OpenGraph]:
        for piece in self._slices.get(bucket, []):
            yield _graph(self._rows([piece]), self._runs([piece]))

    def keys(self, bucket: str) -> Keys:
        rows = self._rows(self._slices.get(bucket, []))
        size = ROW_BYTES + RUN_BYTES * rows["runs"].astype(np.int64)
        score, contacts = rows["score"].astype(np.int64), rows["tie_contacts"].copy()
        return Keys(_pairs(rows, "u", "v"), score, contacts, _pairs(rows, "tie_u", "tie_v"), size)

    def drop(self, bucket: str) -> None:
        for piece in self._slices.pop(bucket, []):
            self._live[piece.segment] -= 1
            if not self._live[piece.segment] and piece.segment < self._segment:
                del self._live[piece.segment]
                for kind in ("rows", "runs"):
                    self._path(piece.segment, kind).unlink()

    def _write(self, rows: OpenGraph) -> None:
        table, runs = np.empty(len(rows), ROW), np.empty(len(rows.run_code), RUN)
        table["u"], table["v"] = rows.pairs.T
        table["tie_u"], table["tie_v"] = rows.tie_pairs.T
        for name in ("tie_contacts", "number", "total"):
            table[name] = getattr(rows, name)
        table["score"] = row_keys(rows, self._linkage).score
        table["runs"] = np.diff(rows.run_start)
        runs["code"], runs["number"] = rows.run_code, rows.run_number
        self._folder.mkdir(parents=True, exist_ok=True)
        for kind, content in (("rows", table), ("runs", runs)):
            with self._path(self._segment, kind).open("ab") as file:
                content.tofile(file)
            self.written_bytes += content.nbytes

    def _rows(self, slices: Sequence[Slice]) -> NDArray[Any]:
        return self._read("rows", ROW, [(s.segment, s.row, s.n_rows) for s in slices])

    def _runs(self, slices: Sequence[Slice]) -> NDArray[Any]:
        return self._read("runs", RUN, [(s.segment, s.run, s.n_runs) for s in slices])

    def _read(
        self, kind: str, dtype: np.dtype[Any], parts: Sequence[tuple[int, int, int]]
    ) -> NDArray[Any]:
        """Records of slices: segment, first, number."""
        out, done = np.empty(sum(n for _, _, n in parts), dtype), 0
        for segment, first, n in parts:
            path = self._path(segment, kind)
            try:
                found = np.fromfile(path, dtype, n, offset=first * dtype.itemsize)
            except OSError as error:
                raise StorageError(f"{path}: not readable: {error}") from error
            if len(found) < n:
                raise StorageError(f"{path}: {n} records at {first} asked for, {len(found)} found")
            out[done : done + n] = found
            done += n
        self.read_bytes += out.nbytes
        return out

    def _path(self, segment: int, kind: str) -> Path:
        return self._folder / f"{segment:06d}.{kind}"


def _graph(rows: NDArray[Any], runs: NDArray[Any]) -> OpenGraph:
    return OpenGraph(
        pairs=_pairs(rows, "u", "v"),
        tie_pairs=_pairs(rows, "tie_u", "tie_v"),
        tie_contacts=rows["tie_contacts"].copy(),
        number=rows["number"].copy(),
        total=rows["total"].copy(),
        run_start=np.concatenate([[0], np.cumsum(rows["runs"], dtype=np.int64)]),
        run_code=runs["code"].copy(),
        run_number=runs["number"].copy(),
    )


def _pairs(rows: NDArray[Any], u: str, v: str) -> NDArray[np.uint64]:
    return np.stack([rows[u], rows[v]], axis=1)
