"""The windows of prediction in 3D: where a network that sees a crop of the volume is run.

Windows lie on a lattice anchored at the domain, which is padded by reflection; neither blocks nor
the box that is asked for move them. A voxel's value comes from every window whose output holds it,
so whoever computes a voxel computes the same. A *cell* is what a task answers for: some steps of
the lattice along each axis. Along an axis on which windows overlap by half, a cell of k steps takes
k + 1 windows; one of them is computed by the neighbour as well (docs/design/0014).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from emslice.errors import GeometryError
from emslice.geometry.boxes import Roi
from emslice.geometry.lattice import Index, Sources

STEPS = {True: 8, False: 4}
"""Longest side of a cell in steps of the lattice, by whether windows overlap. Changes no voxel."""


@dataclass(frozen=True)
class WindowAxis:
    """One axis of the domain and the windows along it; voxels of the domain throughout."""

    length: int
    crop: int
    """Voxels that the network sees."""

    stride: int
    margin: int
    """Voxels that its output is shorter on each side."""

    @property
    def output(self) -> int:
        """Voxels of a window's output."""
        return self.crop - 2 * self.margin

    @property
    def overlaps(self) -> bool:
        """Whether outputs of neighbours share voxels."""
        return self.output > self.stride

    @property
    def n(self) -> int:
        """Windows: as few as reach an eighth of a stride beyond both ends, if they overlap.

        The outermost voxels of a window have next to no weight. The rule gives the published
        paddings: 48 of 1024 voxels and 15 of 1250 with crops of 160, 4 of 100 and 25 sections.
        """
        beyond = -(-self.stride // 8) if self.overlaps else 0
        missing = max(0, self.length + 2 * beyond - self.output)
        return -(-missing // self.stride) + 1

    @property
    def pad(self) -> int:
        """Voxels by which the first output begins before the domain."""
        spare = (self.n - 1) * self.stride + self.output - self.length
        return spare // 2 if self.overlaps else 0

    def begin(self, window: int) -> int:
        """First voxel of a window's output."""
        return window * self.stride - self.pad

    def meeting(self, low: int, high: int) -> range:
        """Windows whose output holds some voxel of [low, high)."""
        first = (low + self.pad - self.output) // self.stride + 1
        last = (high - 1 + self.pad) // self.stride
        return range(max(0, first), min(self.n - 1, last) + 1)

    def sources(self, windows: range) -> NDArray[np.int64]:
        """Voxel of the domain that each voxel shows which a range of windows sees, reflected."""
        first = self.begin(windows[0]) - self.margin
        seen = np.arange(first, self.begin(windows[-1]) - self.margin + self.crop, dtype=np.int64)
        period = max(1, 2 * (self.length - 1))
        seen %= period
        return np.minimum(seen, period - seen)

    def cells(self) -> list[tuple[int, int]]:
        """Begin and end of what each cell answers for; nearly equal, in steps of the lattice."""
        steps = -(-((self.n - 1) * self.stride + self.output) // self.stride)
        n = -(-steps // STEPS[self.overlaps])
        edges = [(steps * i // n) * self.stride - self.pad for i in range(n + 1)]
        edges = [min(max(edge, 0), self.length) for edge in edges]
        return list(pairwise(edges))


@dataclass(frozen=True)
class WindowLattice:
    """All windows of a domain, voxels z, y, x throughout."""

    shape: tuple[int, int, int]
    """The domain."""

    crop: tuple[int, int, int]
    stride: tuple[int, int, int]
    margin: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        for output, stride in zip(self.output, self.stride, strict=True):
            if not 1 <= stride <= output:
                raise GeometryError(
                    f"predict.stride: {self.stride} leaves gaps between the outputs of windows, "
                    f"which are {self.output} voxels; expected 1 to as many along each axis."
                )

    @property
    def output(self) -> tuple[int, int, int]:
        """Voxels of a window's output."""
        z, y, x = (axis.output for axis in self.axes)
        return z, y, x

    @property
    def axes(self) -> tuple[WindowAxis, WindowAxis, WindowAxis]:
        """The three axes, z, y, x."""
        z, y, x = (
            WindowAxis(*sizes)
            for sizes in zip(self.shape, self.crop, self.stride, self.margin, strict=True)
        )
        return z, y, x

    @property
    def largest_cell(self) -> tuple[int, int, int]:
        """Longest side of a cell along each axis."""
        z, y, x = (max(high - low for low, high in axis.cells()) for axis in self.axes)
        return z, y, x

    def meeting(self, box: Roi) -> Iterator[Index]:
        spans = [
            [i for i, (low, high) in enumerate(axis.cells()) if max(low, begin) < min(high, end)]
            for axis, begin, end in zip(self.axes, box.begin, box.end, strict=True)
        ]
        yield from ((z, y, x) for z, y, x in product(*spans))

    def owned(self, index: Index) -> Roi:
        """What a cell answers for."""
        spans = [axis.cells()[i] for axis, i in zip(self.axes, index, strict=True)]
        return Roi([low for low, _ in spans], [high - low for low, high in spans])

    def windows(self, box: Roi) -> tuple[range, range, range]:
        """Windows whose output meets a box, along each axis."""
        z, y, x = (
            axis.meeting(int(low), int(high))
            for axis, low, high in zip(self.axes, box.begin, box.end, strict=True)
        )
        return z, y, x

    def sources(self, index: Index, answer: Roi) -> Sources:
        """Voxel of the domain that each voxel shows which the windows of an answer see."""
        z, y, x = (
            axis.sources(windows)
            for axis, windows in zip(self.axes, self.windows(answer), strict=True)
        )
        return z, y, x
