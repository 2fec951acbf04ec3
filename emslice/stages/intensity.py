"""Raw to what the network sees: a window, then tables made from histograms of the whole domain.

Histograms are counted once, in a stage of their own, and added up in integers. Which voxels they
are of is decided by the domain, never by the ROI, a tile or a block: whole sections, the whole
volume, or cells on a lattice anchored at the origin. So a voxel has the same grey value in every
run (docs/design/0015-intensity.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from emslice.geometry.boxes import Roi
from emslice.ops.clahe import equalise, equalising_tables
from emslice.ops.intensity import to_uint8
from emslice.ops.lookup import GreyLevel, affine_table, count_levels, match_table
from emslice.volumes import Volume

VERSION = 1
"""Raised when the same parameters would give other grey values."""

Mode = Literal["none", "affine", "clahe", "match"]
Window = tuple[int, int] | None


class Intensity(Protocol):
    """How raw becomes the 8 bits that the network sees."""

    def __call__(self, raw: NDArray[np.integer[Any]], box: Roi) -> NDArray[np.uint8]:
        """Grey values of a box of the domain, raw 0 as 0; shape (Z, Y, X)."""


class Levels(Protocol):
    """Histograms of a volume in 8 bits, without the voxels whose raw is 0."""

    def sections(self, first: int, end: int) -> NDArray[np.uint64]:
        """Of whole sections, shape (end - first, 256)."""

    def volume(self) -> NDArray[np.uint64]:
        """Of all sections together, shape (256,)."""

    def cells(self, box: Roi) -> tuple[NDArray[np.integer[Any]], tuple[int, int]]:
        """Of every cell that meets a box, shape (Z, cells y, cells x, 256); index of the first."""


@dataclass(frozen=True)
class Normalisation:
    """Which tables are made, and from what."""

    mode: Mode
    statistics: Literal["section", "volume"] = "section"
    """What an affine table is made from."""

    target: GreyLevel | None = None
    """Of affine: what the network was trained on."""

    cell: int = 128
    """Of clahe: voxels along a side of a cell."""

    clip: float = 2.0
    """Of clahe: most that a grey value may have, as a multiple of what it has when all have as
    many."""

    @property
    def needs_volume(self) -> bool:
        """Whether tables depend on every section of the domain."""
        return self.mode == "match" or (self.mode == "affine" and self.statistics == "volume")

    def facts(self) -> dict[str, Any]:
        """What grey values depend on, for a fingerprint; nothing of it without a mode."""
        facts: dict[str, Any] = {"normalize": self.mode}
        if self.mode in ("affine", "match") and self.target is not None:
            facts["target"] = [self.target.mean, self.target.std]
        if self.mode == "affine":
            facts["statistics"] = self.statistics
        if self.mode == "clahe":
            facts |= {"cell": self.cell, "clip": self.clip}
        return facts

    def over(self, window: Window, levels: Levels) -> Intensity:
        """What is applied to raw."""
        if self.mode == "none":
            return Windowed(window)
        return (Equalised if self.mode == "clahe" else Moved)(window, levels, self)


@dataclass(frozen=True)
class Windowed:
    """Raw through its window, and nothing else."""

    window: Window = None

    def __call__(self, raw: NDArray[np.integer[Any]], box: Roi) -> NDArray[np.uint8]:
        return to_uint8(raw, self.window)


AS_IT_IS = Windowed()


@dataclass(frozen=True)
class Moved:
    """One table for each section."""

    window: Window
    levels: Levels
    normalisation: Normalisation

    @cached_property
    def _volume(self) -> NDArray[np.uint64]:
        return self.levels.volume()

    def __call__(self, raw: NDArray[np.integer[Any]], box: Roi) -> NDArray[np.uint8]:
        shown = to_uint8(raw, self.window)
        first, end = int(box.begin[0]), int(box.end[0])
        moved = np.empty_like(shown)
        for z, table in enumerate(self._tables(first, end)):
            np.take(table, shown[z], out=moved[z])
        moved[raw == 0] = 0
        return moved

    def _tables(self, first: int, end: int) -> list[NDArray[np.uint8]]:
        chosen = self.normalisation
        if chosen.mode == "match":
            matched = [match_table(h, self._volume) for h in self.levels.sections(first, end)]
            if chosen.target is None:
                return matched
            moved = affine_table(self._volume, chosen.target)
            return [moved[table] for table in matched]
        assert chosen.target is not None
        if chosen.statistics == "volume":
            return [affine_table(self._volume, chosen.target)] * (end - first)
        return [affine_table(h, chosen.target) for h in self.levels.sections(first, end)]


@dataclass(frozen=True)
class Equalised:
    """A table for each cell of each section, interpolated between their centres."""

    window: Window
    levels: Levels
    normalisation: Normalisation

    def __call__(self, raw: NDArray[np.integer[Any]], box: Roi) -> NDArray[np.uint8]:
        shown, cell = to_uint8(raw, self.window), self.normalisation.cell
        counts, first_cell = self.levels.cells(box)
        first = int(box.begin[1]), int(box.begin[2])
        moved = np.empty_like(shown)
        for z, section in enumerate(shown):
            tables, sizes = equalising_tables(counts[z], self.normalisation.clip)
            moved[z] = equalise(section, first, tables, sizes, first_cell, cell)
        moved[raw == 0] = 0
        return moved


def cells_around(box: Roi, domain: Roi, cell: int) -> Roi:
    """Box of the cells that the grey values of a box depend on: those it meets and the next."""
    begin, end = list(box.begin), list(box.end)
    for axis in (1, 2):
        begin[axis] = max(0, box.begin[axis] // cell - 1) * cell
        end[axis] = min(domain.end[axis], ((box.end[axis] - 1) // cell + 2) * cell)
    return Roi(begin, [hi - lo for lo, hi in zip(begin, end, strict=True)])


@dataclass(frozen=True)
class CountedLevels:
    """Histograms counted where they are asked for: for a volume in memory."""

    raw: Volume
    window: Window
    cell: int

    @cached_property
    def _sections(self) -> NDArray[np.uint64]:
        domain = self.raw.domain
        return self._count(domain, tuple(domain.shape[1:]))[:, 0, 0].astype(np.uint64)

    def sections(self, first: int, end: int) -> NDArray[np.uint64]:
        return self._sections[first:end]

    def volume(self) -> NDArray[np.uint64]:
        total: NDArray[np.uint64] = self._sections.sum(0)
        return total

    def cells(self, box: Roi) -> tuple[NDArray[np.integer[Any]], tuple[int, int]]:
        around = cells_around(box, self.raw.domain, self.cell)
        first = int(around.begin[1]) // self.cell, int(around.begin[2]) // self.cell
        return self._count(around, (self.cell, self.cell)), first

    def _count(self, box: Roi, cell: tuple[int, int]) -> NDArray[np.uint32]:
        values = self.raw.read(box)
        first = int(box.begin[1]), int(box.begin[2])
        return count_levels(to_uint8(values, self.window), values, cell, first)
