"""The tiles of prediction: where a 2D network is run, whatever the blocks are.

The network halves its input four times, so a section is padded by reflection to multiples of
16, and every tile starts and ends on a multiple of 16 of that *padded section*. A tile's core is
what it answers for, its read box is the core grown by the halo and clipped at the section's edge.
The lattice depends on the section's shape and the core size only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emslice.errors import GeometryError
from emslice.geometry.boxes import Roi

Index = tuple[int, int, int]
"""Of a cell in its lattice, z, y, x."""

Sources = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Voxels of the domain that an array shows, along each axis."""


class Lattice(Protocol):
    """Where a network is run: the cells that tasks answer for, and what they see.

    It pickles, and depends on the domain and the network's parameters only.
    """

    def meeting(self, box: Roi) -> Iterator[Index]:
        """Cells that own a part of a box, in order."""

    def owned(self, index: Index) -> Roi:
        """What a cell answers for; it may reach beyond the domain."""

    def sources(self, index: Index, answer: Roi) -> Sources:
        """Voxels of the domain to be shown to the network for a part of what a cell owns."""


STEP = 16
"""Voxels: four halvings."""

HALO = 112
"""Voxels y, x: the receptive field of the student, 7 steps (reference, section 2.4)."""

Z_RUN = 16
"""Sections that a task takes, from the origin of the domain on; a stem is computed once in a run.
Changes no voxel."""


@dataclass(frozen=True)
class Span:
    """One axis of a tile, in padded-section coordinates."""

    core: tuple[int, int]
    """Begin and end of what the tile answers for."""

    read: tuple[int, int]
    """Begin and end of what the network sees."""


@dataclass(frozen=True)
class Axis:
    """One in-plane axis of a section and its cuts."""

    length: int
    """Voxels before padding."""

    core: int
    """Longest core in voxels, a multiple of 16."""

    @property
    def padded(self) -> int:
        """Length after padding, the next multiple of 16."""
        return -(-self.length // STEP) * STEP

    @property
    def pad(self) -> int:
        """Voxels padded before the first (the reference pads 1250 to 1264 with 7 and 7)."""
        return (self.padded - self.length) // 2

    def answer(self, span: Span) -> tuple[int, int]:
        """Begin and end of a span's core in the section itself, padding left out."""
        low, high = (min(max(edge - self.pad, 0), self.length) for edge in span.core)
        return low, high

    def sources(self, span: Span) -> NDArray[np.int64]:
        """Voxel of the section that each voxel of a span's read box shows: padding is reflected."""
        after = self.padded - self.pad - self.length
        padded = np.pad(np.arange(self.length), (self.pad, after), mode="reflect")
        return padded[slice(*span.read)]

    def spans(self) -> list[Span]:
        """Cores of nearly equal length that cover the padded section once, in order."""
        steps = self.padded // STEP
        n = -(-self.padded // self.core)
        edges = [STEP * (steps * i // n) for i in range(n + 1)]
        return [
            Span((lo, hi), (max(0, lo - HALO), min(self.padded, hi + HALO)))
            for lo, hi in pairwise(edges)
        ]


@dataclass(frozen=True)
class Tile:
    """One call of the network: its place on both in-plane axes."""

    y: Span
    x: Span


@dataclass(frozen=True)
class TileLattice:
    """All tiles of a section."""

    shape: tuple[int, int]
    """Section, voxels y, x, before padding."""

    core: int = 1024
    """Longest side of a tile's core, voxels."""

    last: int | None = None
    """Last section of the volume, where the section behind is shown as well."""

    def __post_init__(self) -> None:
        if self.core < STEP or self.core % STEP:
            raise GeometryError(
                f"predict.tile: {self.core} is not a positive multiple of {STEP} voxels."
            )

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """The two in-plane axes, y and x."""
        return Axis(self.shape[0], self.core), Axis(self.shape[1], self.core)

    @property
    def largest_read(self) -> tuple[int, int]:
        """Longest read box of a tile along each axis, voxels y, x."""
        y, x = (max(s.read[1] - s.read[0] for s in axis.spans()) for axis in self.axes)
        return y, x

    def tile(self, index: Index) -> Tile:
        """The tile of a cell, which is a tile of a run of sections."""
        y, x = self.axes
        return Tile(y.spans()[index[1]], x.spans()[index[2]])

    def meeting(self, box: Roi) -> Iterator[Index]:
        spans = [
            [
                i
                for i, span in enumerate(axis.spans())
                if axis.answer(span)[0] < box.end[d] and axis.answer(span)[1] > box.begin[d]
            ]
            for d, axis in enumerate(self.axes, 1)
        ]
        for z in range(int(box.begin[0]) // Z_RUN, (int(box.end[0]) - 1) // Z_RUN + 1):
            yield from ((z, y, x) for y in spans[0] for x in spans[1])

    def owned(self, index: Index) -> Roi:
        (axis_y, axis_x), tile = self.axes, self.tile(index)
        (y0, y1), (x0, x1) = axis_y.answer(tile.y), axis_x.answer(tile.x)
        return Roi((index[0] * Z_RUN, y0, x0), (Z_RUN, y1 - y0, x1 - x0))

    def sources(self, index: Index, answer: Roi) -> Sources:
        """Read box of the tile; the section before, which for the first section is itself."""
        (axis_y, axis_x), tile = self.axes, self.tile(index)
        behind = 0 if self.last is None else 1
        z = np.arange(int(answer.begin[0]) - 1, int(answer.end[0]) + behind, dtype=np.int64)
        return z.clip(0, self.last), axis_y.sources(tile.y), axis_x.sources(tile.x)

    def tiles(self) -> Iterator[Tile]:
        """Every tile, row by row."""
        y, x = self.axes
        yield from (Tile(down, across) for down in y.spans() for across in x.spans())
