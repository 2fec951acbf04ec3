"""A whole run in blocks, in one process, from the steps of ``stages/blockwise.py``."""

import numpy as np

from emslice.geometry.boxes import Coordinate, Roi, within
from emslice.geometry.grid import BlockGrid
from emslice.geometry.octree import Node, Octree
from emslice.ops import stitch
from emslice.ops.linkage import integer_threshold
from emslice.ops.lut import Lut
from emslice.stages.blockwise import (
    dust_below,
    fragment_block,
    graphs_across,
    join_dust,
    join_graph,
    leaf_dust,
    leaf_graph,
    lut_below,
)

EMPTY = Lut(np.zeros(0, np.uint64), np.zeros(0, np.uint64))


def segment_in_blocks(
    affinity,
    roi,
    domain,
    block_shape,
    linkage,
    threshold,
    lowest,
    radius,
    dust,
    dimensions=2,
    join=join_graph,
):
    """Segmentation of a box, and all merges (child -> parent, score)."""
    grid = BlockGrid(roi, Coordinate(block_shape))
    tree = Octree(grid)
    levels = range(1, tree.root.level + 1)
    method = {"dimensions": dimensions, "histograms": linkage.needs_histograms}
    parts = {i: make_part(affinity, grid, i, roi, domain, radius, **method) for i in grid}

    stitched = {
        Node(0, index): stitch.leaf(part.fragments.exits, part.faces)
        for index, part in parts.items()
    }
    for level in levels:
        for node in tree.nodes(level):
            children = [stitched[child] for child in tree.children(node)]
            stitched[node] = stitch.join(children, tree.box(node), domain)
    exits = walk_down(tree, {tree.root: EMPTY}, lambda node, above, child: (
        stitch.resolve_down(stitched[node].links, above).of(stitched[child].exits)
    ))  # fmt: skip

    least = integer_threshold(lowest)
    faces = {i: part.faces.relabelled(exits[Node(0, i)]) for i, part in parts.items()}

    def planes(axis, before, later):
        return faces[before].upper[axis], faces[later].lower[axis], faces[later].codes[axis]

    graphs = {
        Node(0, index): leaf_graph(
            part.rows, faces[index], exits[Node(0, index)], roi, least, linkage
        )
        for index, part in parts.items()
    }
    for level in levels:
        for node in tree.nodes(level):
            children = [graphs[child] for child in tree.children(node)]
            across = list(graphs_across(tree, node, planes, linkage, batch=7))
            graphs[node] = join(children, across, tree.box(node), roi, least, linkage)
    luts = walk_down(tree, {tree.root: EMPTY}, lambda node, above, child: (
        lut_below(graphs[node].decided.merges, above, threshold)
        .of(graphs[child].decided.open_names)
    ))  # fmt: skip

    tables = {
        node: exits[node].then(lut_below(graphs[node].decided.merges, luts[node], threshold))
        for node in tree.nodes(0)
    }
    gone = dust_tables(tree, parts, tables, roi, dust)

    segmentation = np.zeros(tuple(int(n) for n in roi.shape), np.uint64)
    for index, part in parts.items():
        lut = tables[Node(0, index)].then(gone[Node(0, index)])
        segmentation[within(grid.block(index), roi)] = lut.apply(part.labels)
    merges = {}
    for graph in graphs.values():
        tree_of_node = graph.decided.merges
        rows = zip(tree_of_node.child, tree_of_node.parent, tree_of_node.score, strict=True)
        for child, parent, score in rows:
            assert int(child) not in merges  # every child gives up its name once
            merges[int(child)] = (int(parent), int(score))
    return segmentation, merges


def dust_tables(tree, parts, tables, roi, rule):
    """For each block, its small segments -> what they become."""
    found = {
        Node(0, index): leaf_dust(
            part.fragments.ids, part.fragments.voxels, part.rows, part.faces,
            tables[Node(0, index)], roi, rule,
        )
        for index, part in parts.items()
    }  # fmt: skip
    for level in range(1, tree.root.level + 1):
        for node in tree.nodes(level):
            children = [found[child] for child in tree.children(node)]
            found[node] = join_dust(children, tree.box(node), roi, rule)
    assert not len(found[tree.root].settled.sizes.names)
    top = {tree.root: dust_below(found[tree.root].settled, EMPTY)}
    return walk_down(tree, top, lambda node, above, child: (
        dust_below(found[child].settled, above)
    ))  # fmt: skip


def make_part(affinity, grid, index, roi, domain, radius, dimensions, histograms):
    block = grid.block(index)
    halo = (0, radius, radius) if dimensions == 2 else (radius, radius, radius)
    read = grid.read(index, halo)
    codes = np.ascontiguousarray(affinity[(slice(None), *within(read, roi))])
    return fragment_block(
        codes, read, block, domain, radius, dimensions=dimensions, histograms=histograms
    )


def walk_down(tree, tables, step):
    """Tables of all nodes from the root's: ``step(node, its table, child)`` is the child's."""
    for level in range(tree.root.level, 0, -1):
        for node in tree.nodes(level):
            for child in tree.children(node):
                tables[child] = step(node, tables[node], child)
    return tables


def whole(affinity, roi, domain, linkage, threshold, lowest, radius, dust, dimensions=2):
    """The same by the kernels for a volume in memory."""
    from emslice.stages.agglomerate import clear_dust, grow, oversegment

    parts = oversegment(
        affinity, roi, domain, radius, dimensions=dimensions, histograms=linkage.needs_histograms
    )
    tree = grow(parts, linkage, lowest)
    lut = clear_dust(parts, tree.cut(threshold), dust)
    segments = lut.apply(parts.fragments.ids)[parts.fragments.labels]
    rows = zip(tree.child, tree.parent, tree.score, strict=True)
    return segments, {int(c): (int(p), int(s)) for c, p, s in rows}


def roi_in(shape, offset, margin):
    """(box, domain) with a margin of the domain beyond the box."""
    box = Roi(offset, shape)
    return box, Roi((0, 0, 0), tuple(int(e) + m for e, m in zip(box.end, margin, strict=True)))
