"""The steps of a segmentation on one block, or on one node of the octree: values in, values out.

In the order of a run: `fragment_block` on every block; `stitch.leaf` and `stitch.join` up the
octree and `stitch.resolve_down` back; `leaf_graph`, `join_graph` and ``open_graph.decide`` up, and
`lut_below` back; `leaf_dust` and `join_dust` up, and `dust_below` back, if small segments are to
go; a LUT relabels each block. Whoever stores the values and runs the steps, in which order and how
often, does not matter to the result.
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
from emslice.ops.dust import DustRule, Settled, add_up, join_sizes, segment_rows, settle
from emslice.ops.faces import (
    Faces,
    Sides,
    contacts_between,
    cut_faces,
    join_faces,
    join_sides,
    sides_of,
    touching,
)
from emslice.ops.fragments import Fragments
from emslice.ops.linkage import Linkage
from emslice.ops.lut import Lut
from emslice.ops.merge_tree import MergeTree
from emslice.ops.open_graph import Decided, OpenGraph, base_graph, decide, join_graphs
from emslice.ops.region_graph import extract_edges
from emslice.stages.fragment_methods import INVARIANT, fragments_by

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


@dataclass(frozen=True)
class NodeDust:
    """What a node settled of its small segments, and its faces with segments on them."""

    settled: Settled
    faces: Faces


def fragment_block(
    affinity: NDArray[np.uint8],
    read: Roi,
    block: Roi,
    domain: Roi,
    radius: int,
    workers: int = 1,
    dimensions: int = 2,
    histograms: bool = False,
    method: str = INVARIANT,
) -> BlockFragments:
    """Fragments of a block and the contacts inside it.

    Parameters
    ----------
    affinity : uint8, shape (3, Z, Y, X)
        Codes of the read box: the block and the halo of fragments, as far as the volume goes.
    histograms : bool
        Whether the linkage needs them.
    """
    fragments = fragments_by(method, affinity, read, domain, radius, workers, block, dimensions)
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


def leaf_dust(
    ids: NDArray[np.uint64],
    voxels: NDArray[np.int64],
    rows: Contacts,
    faces: Faces,
    segments: Lut,
    roi: Roi,
    rule: DustRule,
) -> NodeDust:
    """What a block settles; ``ids`` have ``voxels`` each, ``segments`` is the block's whole LUT."""
    faces = faces.relabelled(segments)
    sizes = add_up(segments.apply(ids), voxels)
    return NodeDust(
        settle(segment_rows(rows, segments), sizes, touching(sides_of(faces), roi), rule), faces
    )


def join_dust(children: Sequence[NodeDust], box: Roi, roi: Roi, rule: DustRule) -> NodeDust:
    """What a node settles, from its children and the contacts across their common faces."""
    across = contacts_between([child.faces for child in children])
    rows = combine([*(child.settled.rows for child in children), across])
    sizes = join_sizes([child.settled.sizes for child in children])
    faces = join_faces([child.faces for child in children], box)
    return NodeDust(settle(rows, sizes, touching(sides_of(faces), roi), rule), faces)


def dust_below(settled: Settled, above: Lut) -> Lut:
    """Small segments of a node -> what they become, once its parent's table is known."""
    return settled.targets.then(above.of(settled.sizes.names))
