"""Exits to roots: up the octree, then down to a table for each block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emslice.geometry.octree import Node
from emslice.ledger.arrays import load_arrays
from emslice.ops import stitch
from emslice.ops.lut import Lut
from emslice.stages.fragments import FragmentBlocks
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
class StitchBlocks(UpAndDown):
    """Exits to roots: up the octree, then down to a table for each block."""

    fragments: FragmentBlocks

    name = "stitch"
    first_level = 1  # a block's exits are stored with its fragments

    @property
    def frame(self) -> Frame:
        return self.fragments.frame

    def up(self, node: Node) -> dict[str, Any]:
        frame = self.frame
        children = [self._load(child) for child in frame.octree.children(node)]
        joined = stitch.join(children, frame.octree.box(node), frame.domain)
        save_faces(self.file("up", node, "faces"), joined.faces)
        save_value(self.file("up", node, "links"), joined.links, exits=joined.exits)
        return {}

    def _load(self, node: Node) -> stitch.Stitch:
        box = self.frame.octree.box(node)
        if node.level == 0:
            exits, _ = self.fragments.ends(node.index)
            return stitch.leaf(exits, self.fragments.faces(node.index))
        arrays = load_arrays(self.file("up", node, "links"))
        faces = load_faces(self.file("up", node, "faces"), box)
        return stitch.Stitch(take(Lut, arrays), arrays["exits"], faces)

    def down(self, node: Node) -> Lut:
        """Table of a node's own exits, through its parent's."""
        parent = self.frame.octree.parent(node)
        if parent is None:
            return empty_lut()
        links = take(Lut, load_arrays(self.file("up", parent, "links")))
        if node.level == 0:
            exits, _ = self.fragments.ends(node.index)
        else:
            exits = load_arrays(self.file("up", node, "links"))["exits"]
        exits.sort()
        return stitch.resolve_down(links, self.table(parent)).of(exits)
