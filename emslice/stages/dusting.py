"""Small segments to what they become: up the octree, then down to a table for each block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emslice.geometry.grid import Index
from emslice.geometry.octree import Node
from emslice.ledger.arrays import load_arrays
from emslice.ops.contacts import Contacts
from emslice.ops.dust import DustRule, Settled, Sizes
from emslice.ops.lut import Lut
from emslice.stages.agglomeration import AgglomerateBlocks, CutBlocks
from emslice.stages.blockwise import NodeDust, dust_below, join_dust, leaf_dust
from emslice.stages.layout import (
    Frame,
    empty_lut,
    load_faces,
    save_faces,
    save_value,
    take,
)
from emslice.stages.up_and_down import UpAndDown


@dataclass(frozen=True)
class DustBlocks(UpAndDown):
    """The LUTs of a cut to LUTs without small segments."""

    cut: CutBlocks
    rule: DustRule

    name = "dust"
    first_level = 0

    @property
    def agglomerated(self) -> AgglomerateBlocks:
        """What was cut."""
        return self.cut.agglomerated

    @property
    def frame(self) -> Frame:
        return self.agglomerated.frame

    def up(self, node: Node) -> dict[str, Any]:
        """Settle what a node can; returns how many segments went."""
        part = self._leaf(node) if node.level == 0 else self._join(node)
        settled = part.settled
        save_faces(self.file("up", node, "faces"), part.faces)
        sizes, targets = settled.sizes, settled.targets
        save_value(
            self.file("up", node, "settled"), settled.rows, names=sizes.names,
            voxels=sizes.voxels, small=targets.fragments, becomes=targets.segments,
        )  # fmt: skip
        return {"joined": settled.joined, "dropped": settled.dropped, "open": len(settled.rows)}

    def _leaf(self, node: Node) -> NodeDust:
        fragments, index = self.agglomerated.stitched.fragments, node.index
        _, ids = fragments.ends(index)
        rows, faces = fragments.plain_contacts(index), fragments.faces(index)
        voxels, segments = fragments.voxels(index), self.cut.lut(index)
        return leaf_dust(ids, voxels, rows, faces, segments, self.frame.box, self.rule)

    def _join(self, node: Node) -> NodeDust:
        tree = self.frame.octree
        children = [self._load(child) for child in tree.children(node)]
        return join_dust(children, tree.box(node), self.frame.box, self.rule)

    def _load(self, node: Node) -> NodeDust:
        faces = load_faces(self.file("up", node, "faces"), self.frame.octree.box(node))
        return NodeDust(self._settled(node), faces)

    def _settled(self, node: Node) -> Settled:
        arrays = load_arrays(self.file("up", node, "settled"))
        targets = Lut(arrays["small"], arrays["becomes"])
        sizes = Sizes(arrays["names"], arrays["voxels"])
        return Settled(targets, sizes, take(Contacts, arrays))

    def down(self, node: Node) -> Lut:
        """Table of a node's segments, or of a block's labels, through its parent's."""
        parent = self.frame.octree.parent(node)
        above = empty_lut() if parent is None else self.table(parent)
        table = dust_below(self._settled(node), above)
        if node.level > 0:
            return table
        labels = self.cut.lut(node.index)
        return labels.then(table).of(labels.fragments)

    def lut(self, index: Index) -> Lut:
        """Labels of a block -> segments without small ones."""
        return self.table(Node(0, index))
