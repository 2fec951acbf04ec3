"""The steps of a segmentation on one block, or on one node of the octree: values in, values out.

In the order of a run: `fragment_block` on every block; `stitch.leaf` and `stitch.join` up the
octree and `stitch.resolve_down` back; `leaf_graph`, `join_graph` and ``open_graph.decide`` up, and
`lut_below` back; a LUT relabels each block. Whoever stores the values and runs the steps, in which
order and how often, does not matter to the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emslice.geometry.boxes import Roi, within
from emslice.geometry.grid import Index
from emslice.geometry.octree import Node, Octree
from emslice.ops.contacts import Contacts, combine, contacts_across, contacts_of, resolve
from emslice.ops.faces import Faces, Sides, cut_faces, join_sides, sides_of, touching
from emslice.ops.fragments import Fragments, make_fragments
from emslice.ops.linkage import Linkage
from emslice.ops.lut import Lut
from emslice.ops.merge_tree import MergeTree
from emslice.ops.open_graph import Decided, OpenGraph, base_graph, decide, join_graphs
from emslice.ops.region_graph import extract_edges

ACROSS_ROWS = 2**18
"""Rows between two blocks that are held before equal ones combine."""


@dataclass(frozen=True)
class BlockFragments:
    """What a block gives: labels, some of them exits, and all that others need to know."""

    fragments: Fragments
    rows: Contacts
    faces: Faces

    @property
    def labels(self) -> NDArray[np.uint64]:
        """Shape (Z, Y, X). Ids of roots, and of exits where a path leaves the block."""
        return self.fragments.ids[self.fragments.labels]


@dataclass(frozen=True)
class NodeGraph:
    """Open graph and sides of a node, resolved to whole fragments."""

    decided: Decided
    sides: Sides


def fragment_block(
    affinity: NDArray[np.uint8],
    read: Roi,
    block: Roi,
    domain: Roi,
    radius: int,
    workers: int = 1,
    histograms: bool = False,
) -> BlockFragments:
    """Fragments of a block and the contacts inside it.

    Parameters
    ----------
    affinity : uint8, shape (3, Z, Y, X)
        Codes of the read box: the block and ``radius`` voxels along y and x, as far as the
        volume goes.
    histograms : bool
        Whether the linkage needs them.
    """
    fragments = make_fragments(affinity, read, domain, radius, workers, block)
    codes = np.ascontiguousarray(affinity[(slice(None), *within(block, read))])
    graph = extract_edges(codes, fragments.labels, workers, histograms)
    labels = fragments.ids[fragments.labels]
    return BlockFragments(
        fragments, contacts_of(graph, fragments.ids), cut_faces(labels, codes, block)
    )


def leaf_graph(
    rows: Contacts, faces: Faces, exits: Lut, roi: Roi, lowest: int, linkage: Linkage
) -> NodeGraph:
    """What a block decides, once its exits are resolved; its faces are resolved already."""
    graph, sides = base_graph(resolve(rows, exits), linkage), sides_of(faces)
    return NodeGraph(decide(graph, touching(sides, roi), lowest, linkage), sides)


ThreePlanes = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint8]]
Planes = Callable[[int, Index, Index], ThreePlanes]
"""Axis and two blocks that meet across it -> labels of the last layer of the one, labels and codes
of the first layer of the other."""


def graphs_across(
    tree: Octree, node: Node, planes: Planes, linkage: Linkage, batch: int = ACROSS_ROWS
) -> Iterator[OpenGraph]:
    """Rows across the common faces of a node's children, some ``batch`` at a time.

    Two blocks are looked at together, so that no plane of a node is ever in memory.
    """
    held: list[Contacts] = []
    for axis, before, later in tree.facing(node):
        held.append(contacts_across(*planes(axis, before, later), linkage.needs_histograms))
        if sum(len(part) for part in held) > batch:
            yield base_graph(combine(held), linkage)
            held = []
    yield base_graph(combine(held), linkage)


def join_graph(
    children: Sequence[NodeGraph],
    across: Sequence[OpenGraph],
    box: Roi,
    roi: Roi,
    lowest: int,
    linkage: Linkage,
) -> NodeGraph:
    """What a node decides, from its children and the rows across their common faces."""
    graph = join_graphs([*(child.decided.rest for child in children), *across], linkage)
    sides = join_sides([child.sides for child in children], box)
    return NodeGraph(decide(graph, touching(sides, roi), lowest, linkage), sides)


def lut_below(merges: MergeTree, above: Lut, threshold: float) -> Lut:
    """Names in a node -> segments, once those of its open names are known from above."""
    return merges.cut(threshold).then(above)
