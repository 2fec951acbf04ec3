"""Histograms of raw in a run of blocks: counted part by part, then added up.

A part is a run of sections of one piece of the section; pieces are anchored at the origin of the
domain and hold whole cells. First wave: the histograms of each part. For tables by section, second:
those of whole sections; for tables that need the whole volume, third: their sum. All are exact
integers in files that are flushed before they are recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.engine.stage import Process, Resource
from emslice.geometry.boxes import Roi, clip, cut, within
from emslice.geometry.lattice import Z_RUN
from emslice.ledger.arrays import load_arrays, save_arrays
from emslice.ops.intensity import to_uint8
from emslice.ops.lookup import LEVELS, count_levels, level_of, moments_of
from emslice.stages.intensity import Normalisation, Window, cells_around
from emslice.stages.layout import index_of, key_of
from emslice.volumes import Volume, open_volume

PIECE = 4096
"""Longest side of a part, voxels; it is rounded down to whole cells. Changes no histogram."""

SLICE_BYTES = 2**26
"""Raw that is read at once."""


@dataclass(frozen=True)
class MeasuredLevels:
    """Histograms that `MeasureIntensity` has stored; see `stages.intensity.Levels`."""

    folder: str
    domain_shape: tuple[int, int, int]
    box: tuple[tuple[int, int, int], tuple[int, int, int]]
    """Begin and shape of what is measured."""

    cell: int
    by_cell: bool

    @property
    def side(self) -> int:
        """Voxels along a part."""
        return max(1, PIECE // self.cell) * self.cell

    @property
    def domain(self) -> Roi:
        """Full extent of the raw volume."""
        return Roi((0, 0, 0), self.domain_shape)

    def keys(self, box: Roi) -> Iterator[str]:
        """Names of the parts that meet a box, section by section."""
        steps = (Z_RUN, self.side, self.side)
        z, y, x = (
            range(int(lo) // n, (int(hi) - 1) // n + 1)
            for lo, hi, n in zip(box.begin, box.end, steps, strict=True)
        )
        yield from (key_of((k, j, i)) for k in z for j in y for i in x)

    def part(self, key: str) -> Roi:
        """What a part covers: all of its piece, of the sections that are measured."""
        z, y, x = index_of(key)
        whole = Roi((z * Z_RUN, y * self.side, x * self.side), (Z_RUN, self.side, self.side))
        first, n = self.box[0][0], self.box[1][0]
        sections = Roi((first, 0, 0), (n, *self.domain_shape[1:]))
        return clip(whole, sections)

    def path(self, kind: str, key: str) -> Path:
        """File of a task."""
        return Path(self.folder) / kind / f"{key}.npz"

    def sections(self, first: int, end: int) -> NDArray[np.uint64]:
        found = []
        for run in cut(Roi((first, 0, 0), (end - first, 1, 1)), axis=0, step=Z_RUN):
            z = int(run.begin[0]) // Z_RUN
            there = max(z * Z_RUN, self.box[0][0])
            counts = load_arrays(self.path("sections", str(z)))["counts"]
            found.append(counts[int(run.begin[0]) - there : int(run.end[0]) - there])
        return np.concatenate(found)

    def volume(self) -> NDArray[np.uint64]:
        return load_arrays(self.path("volume", "all"))["counts"]

    def cells(self, box: Roi) -> tuple[NDArray[np.integer[Any]], tuple[int, int]]:
        around = cells_around(box, self.domain, self.cell)
        found = self._in_cells(around)
        counts = np.zeros((*(int(n) for n in found.shape), LEVELS), np.uint32)
        for key in self.keys(around):
            stored, part = load_arrays(self.path("parts", key))["counts"], self.part(key)
            shared = self._in_cells(clip(part, around))
            counts[within(shared, found)] = stored[within(shared, self._in_cells(part))]
        return counts, (int(found.begin[1]), int(found.begin[2]))

    def _in_cells(self, box: Roi) -> Roi:
        """A box that begins on cells, counted in sections and cells."""
        (z, y, x), n = box.begin, self.cell
        ny, nx = (
            -(-int(end) // n) - int(lo) // n for lo, end in ((y, box.end[1]), (x, box.end[2]))
        )
        return Roi((z, int(y) // n, int(x) // n), (box.shape[0], ny, nx))


@dataclass(frozen=True)
class MeasureIntensity:
    """Raw to histograms."""

    levels: MeasuredLevels
    normalisation: Normalisation
    raw_url: str
    window: Window
    fingerprint: str
    peak_bytes: int

    name = "intensity"
    resource: Resource = field(default="CPU", init=False)
    seconds_per_task = 1.0

    @property
    def _box(self) -> Roi:
        return Roi(*self.levels.box)

    @cached_property
    def n_tasks(self) -> int:
        """Parts, runs of sections, and the volume."""
        return sum(1 for wave in self.waves() for _ in wave)

    def waves(self) -> Iterator[Iterable[str]]:
        yield (f"parts/{key}" for key in self.levels.keys(self._box))
        if not self.levels.by_cell:
            yield (f"sections/{z}" for z in self._runs())
        if self.normalisation.needs_volume:
            yield ["volume/all"]

    def _runs(self) -> range:
        return range(self._box.begin[0] // Z_RUN, (self._box.end[0] - 1) // Z_RUN + 1)

    def prepare(self) -> None:
        for kind in ("parts", "sections", "volume"):
            (Path(self.levels.folder) / kind).mkdir(parents=True, exist_ok=True)

    @contextmanager
    def open(self) -> Iterator[Process]:
        raw = open_volume(self.raw_url)

        def process(key: str) -> dict[str, Any]:
            kind, name = key.split("/")
            facts: dict[str, Any] = {}
            if kind == "parts":
                counts = self._count(raw, self.levels.part(name))
                facts = moments_of(counts.sum((0, 1, 2), dtype=np.uint64))
            elif kind == "sections":
                counts = self._add_parts(int(name))
                found = [level_of(section) for section in counts]
                facts = {"means": [round(level.mean, 2) for level in found if level is not None]}
            else:
                counts = self._add_sections()
            save_arrays(self.levels.path(kind, name), counts=counts)
            return facts

        yield process

    def _count(self, raw: Volume, part: Roi) -> NDArray[Any]:
        """Of each cell, or of each section of the part; as narrow as the largest count allows."""
        _, height, width = (int(n) for n in part.shape)
        cell = (self.levels.cell,) * 2 if self.levels.by_cell else (self.levels.side,) * 2
        step = max(1, SLICE_BYTES // (height * width * raw.dtype.itemsize))
        found = []
        for piece in cut(part, axis=0, step=step):
            values = raw.read(piece)
            found.append(count_levels(to_uint8(values, self.window), values, cell))
        counts = np.concatenate(found)
        return counts.astype(np.min_scalar_type(int(counts.max())))

    def _add_parts(self, z: int) -> NDArray[np.uint64]:
        """Of whole sections of a run, shape (Z, 256)."""
        box = self._box
        run = clip(Roi((z * Z_RUN, *box.begin[1:]), (Z_RUN, *box.shape[1:])), box)
        total = np.zeros((int(run.shape[0]), LEVELS), np.uint64)
        for key in self.levels.keys(run):
            counts = load_arrays(self.levels.path("parts", key))["counts"]
            total += counts.sum((1, 2), dtype=np.uint64)
        return total

    def _add_sections(self) -> NDArray[np.uint64]:
        total = np.zeros(LEVELS, np.uint64)
        for z in self._runs():
            counts = load_arrays(self.levels.path("sections", str(z)))["counts"]
            total += counts.sum(0, dtype=np.uint64)
        return total


def counts_bytes(levels: MeasuredLevels) -> int:
    """Most that the histograms of a part take."""
    height, width = (min(levels.side, n) for n in levels.domain_shape[1:])
    cells = -(-height // levels.cell) * -(-width // levels.cell) if levels.by_cell else 1
    return Z_RUN * cells * LEVELS * 4


def part_bytes(levels: MeasuredLevels, itemsize: int) -> int:
    """Most that the task of a part holds: one read of raw, and all of its counts twice."""
    height, width = (min(levels.side, n) for n in levels.domain_shape[1:])
    read = max(SLICE_BYTES, height * width * itemsize)
    # to_uint8 of a window works in int64
    return read * (2 if itemsize == 1 else 20) + 2 * counts_bytes(levels)
