"""The blocks of a box: units of work, of any shape, that cover it exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from emslice.errors import GeometryError
from emslice.geometry.boxes import Coordinate, Roi, clip

Index = tuple[int, int, int]
"""Place of a block in its grid, z, y, x."""


@dataclass(frozen=True, eq=False)
class BlockGrid:
    """Blocks of one shape from the box's first voxel on; the last of a row may be shorter."""

    roi: Roi
    """The box that is covered, in domain voxels."""

    block_shape: Coordinate
    """Voxels z, y, x."""

    def __post_init__(self) -> None:
        if any(n < 1 for n in self.block_shape):
            raise GeometryError(f"block: {tuple(self.block_shape)} has a side below 1 voxel.")

    @property
    def shape(self) -> Index:
        """Blocks along z, y, x."""
        z, y, x = (
            -(-int(n) // int(b)) for n, b in zip(self.roi.shape, self.block_shape, strict=True)
        )
        return z, y, x

    def __len__(self) -> int:
        z, y, x = self.shape
        return z * y * x

    def __iter__(self) -> Iterator[Index]:
        z, y, x = self.shape
        yield from product(range(z), range(y), range(x))

    def block(self, index: Index) -> Roi:
        """Write box of a block."""
        begin = self.roi.begin + Coordinate(index) * self.block_shape
        return clip(Roi(begin, self.block_shape), self.roi)

    def read(self, index: Index, halo: tuple[int, int, int]) -> Roi:
        """Read box of a block: its write box and the halo, as far as the covered box goes."""
        block = self.block(index)
        return clip(block.grow(Coordinate(halo), Coordinate(halo)), self.roi)

    def meeting(self, box: Roi) -> Iterator[Index]:
        """Every block that shares a voxel with a box, in order."""
        inside = clip(box, self.roi)
        if inside.empty:
            return
        low = [
            int(b - r) // int(n)
            for b, r, n in zip(inside.begin, self.roi.begin, self.block_shape, strict=True)
        ]
        high = [
            int(e - r - 1) // int(n)
            for e, r, n in zip(inside.end, self.roi.begin, self.block_shape, strict=True)
        ]
        yield from product(*(range(lo, hi + 1) for lo, hi in zip(low, high, strict=True)))
