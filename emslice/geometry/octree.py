"""A tree over the blocks of a grid: each node joins up to 2 x 2 x 2 of the level below."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from emslice.geometry.boxes import Coordinate, Roi, clip
from emslice.geometry.grid import BlockGrid, Index


@dataclass(frozen=True)
class Node:
    """A node: level 0 is a block; its place counts nodes of its level."""

    level: int
    index: Index


@dataclass(frozen=True, eq=False)
class Octree:
    """All nodes over a grid. An axis with one node is not halved further."""

    grid: BlockGrid

    @property
    def root(self) -> Node:
        """The node that covers everything; the only block, if there is one block."""
        level = (max(self.grid.shape) - 1).bit_length()
        return Node(level, (0, 0, 0))

    def shape(self, level: int) -> Index:
        """Nodes of a level along z, y, x."""
        z, y, x = (-(-n // 2**level) for n in self.grid.shape)
        return z, y, x

    def nodes(self, level: int) -> Iterator[Node]:
        """Every node of a level, in order."""
        z, y, x = self.shape(level)
        places = product(range(z), range(y), range(x))
        yield from (Node(level, index) for index in places)

    def children(self, node: Node) -> list[Node]:
        """Nodes of the level below that a node joins, in order."""
        if node.level == 0:
            return []
        shape = self.shape(node.level - 1)
        z, y, x = (range(2 * i, min(2 * i + 2, n)) for i, n in zip(node.index, shape, strict=True))
        return [Node(node.level - 1, index) for index in product(z, y, x)]

    def parent(self, node: Node) -> Node | None:
        """The node that joins this one; none above the root."""
        if node == self.root:
            return None
        z, y, x = (i // 2 for i in node.index)
        return Node(node.level + 1, (z, y, x))

    def facing(self, node: Node) -> Iterator[tuple[int, Index, Index]]:
        """Axis and places of any two blocks that meet across a common face of its children."""
        places = [
            range(i << node.level, min((i + 1) << node.level, n))
            for i, n in zip(node.index, self.grid.shape, strict=True)
        ]
        for axis, along in enumerate(places):
            later = along.start + (1 << node.level >> 1)
            if node.level == 0 or later >= along.stop:
                continue
            here = [*places[:axis], range(later, later + 1), *places[axis + 1 :]]
            for z, y, x in product(*here):
                before = [z, y, x]
                before[axis] -= 1
                yield axis, (before[0], before[1], before[2]), (z, y, x)

    def box(self, node: Node) -> Roi:
        """Voxels of a node."""
        shape = self.grid.block_shape * 2**node.level
        return clip(Roi(self.grid.roi.begin + Coordinate(node.index) * shape, shape), self.grid.roi)
