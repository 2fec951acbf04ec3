"""Every common face of two blocks belongs to one node of the octree."""

from itertools import product

import pytest

from emslice.geometry.boxes import Coordinate, Roi
from emslice.geometry.grid import BlockGrid
from emslice.geometry.octree import Node, Octree


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (5, 1, 4), (1, 1, 9), (3, 6, 2)])
def test_each_pair_of_blocks_that_meet_is_found_once(shape):
    grid = BlockGrid(Roi((2, 0, 5), tuple(3 * n for n in shape)), Coordinate(3, 3, 3))
    tree, found = Octree(grid), []
    for level in range(tree.root.level + 1):
        for node in tree.nodes(level):
            found += tree.facing(node)
    expected = []
    for axis, place in product(range(3), grid):
        later = tuple(i + (k == axis) for k, i in enumerate(place))
        if later[axis] < shape[axis]:
            expected.append((axis, place, later))
    assert sorted(found) == sorted(expected)
    assert not list(tree.facing(Node(0, (0, 0, 0))))
