"""Blocks cover their box once, as daisy enumerates them; the octree covers the blocks."""

import daisy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emslice.errors import GeometryError
from emslice.geometry.boxes import Coordinate, Roi, clip, n_voxels, within
from emslice.geometry.grid import BlockGrid
from emslice.geometry.octree import Node, Octree

default = settings(max_examples=80, deadline=None, derandomize=True)
sides = st.tuples(st.integers(1, 7), st.integers(1, 11), st.integers(1, 13))
offsets = st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 9))


def grid_of(offset, shape, block):
    return BlockGrid(Roi(offset, shape), Coordinate(block))


@default
@given(offsets, sides, sides)
def test_blocks_cover_the_box_exactly_once(offset, shape, block):
    grid = grid_of(offset, shape, block)
    count = np.zeros(shape, int)
    for index in grid:
        count[within(grid.block(index), grid.roi)] += 1
    assert (count == 1).all()
    assert len(list(grid)) == len(grid)


@default
@given(offsets, sides, sides)
def test_blocks_are_those_that_daisy_enumerates(offset, shape, block):
    grid = grid_of(offset, shape, block)
    task = daisy.Task(
        "blocks", grid.roi, Roi((0, 0, 0), block), Roi((0, 0, 0), block),
        process_function=lambda b: None, read_write_conflict=False, fit="shrink",
    )  # fmt: skip
    ours = {(tuple(b.begin), tuple(b.shape)) for b in map(grid.block, grid)}
    assert ours == blocks_of_daisy(task)


def blocks_of_daisy(task):
    """Write boxes that daisy hands out, in any order."""
    from daisy import Scheduler
    from daisy.v2 import Pipeline

    scheduler, found = Scheduler(Pipeline.from_task(task)), set()
    while (block := scheduler.acquire_block(task.task_id)) is not None:
        found.add((tuple(block.write_roi.begin), tuple(block.write_roi.shape)))
        block.status = daisy.BlockStatus.SUCCESS
        scheduler.release_block(block)
    return found


@default
@given(offsets, sides, sides, offsets, sides)
def test_the_blocks_that_meet_a_box_are_those_that_share_a_voxel(offset, shape, block, low, size):
    grid, box = grid_of(offset, shape, block), Roi(low, size)
    sharing = [i for i in grid if not clip(grid.block(i), box).empty]
    assert list(grid.meeting(box)) == sharing


@default
@given(offsets, sides, sides, st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(0, 3)))
def test_a_read_box_is_the_block_and_its_halo_inside_the_box(offset, shape, block, halo):
    grid = grid_of(offset, shape, block)
    for index in grid:
        write, read = grid.block(index), grid.read(index, halo)
        assert read == write.grow(Coordinate(halo), Coordinate(halo)).intersect(grid.roi)


def test_a_block_without_voxels_is_refused():
    with pytest.raises(GeometryError, match=r"block.*\(3, 0, 4\)"):
        grid_of((0, 0, 0), (5, 5, 5), (3, 0, 4))


@default
@given(offsets, sides, sides)
def test_children_fill_their_node_and_know_their_parent(offset, shape, block):
    tree = Octree(grid_of(offset, shape, block))
    assert tree.box(tree.root) == tree.grid.roi
    for level in range(1, tree.root.level + 1):
        for node in tree.nodes(level):
            children = tree.children(node)
            assert 1 <= len(children) <= 8
            assert sum(n_voxels(tree.box(child)) for child in children) == n_voxels(tree.box(node))
            assert all(tree.box(node).contains(tree.box(child)) for child in children)
            assert all(tree.parent(child) == node for child in children)


@default
@given(offsets, sides, sides)
def test_every_level_covers_the_box_with_nodes(offset, shape, block):
    tree = Octree(grid_of(offset, shape, block))
    for level in range(tree.root.level + 1):
        assert sum(n_voxels(tree.box(n)) for n in tree.nodes(level)) == n_voxels(tree.grid.roi)
    assert [tree.grid.block(i) for i in tree.grid] == [tree.box(n) for n in tree.nodes(0)]


def test_one_block_is_its_own_root():
    tree = Octree(grid_of((0, 0, 0), (3, 4, 5), (9, 9, 9)))
    assert tree.root == Node(0, (0, 0, 0))
    assert tree.parent(tree.root) is None
    assert tree.children(tree.root) == []
