"""Small segments to what they become: up the octree, then down to a table for each block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from emslice.engine.stage import Process, Resource
from emslice.geometry.grid import Index
from emslice.geometry.octree import Node
from emslice.ledger.arrays import load_arrays
from emslice.ops.contacts import Contacts
from emslice.ops.dust import DustRule, Settled, Sizes
from emslice.ops.lut import Lut
from emslice.stages.agglomeration import AgglomerateBlocks, CutBlocks
from emslice.stages.blockwise import NodeDust, dust_below, join_dust, leaf_dust
from emslice.stages.holes import lut_digest
from emslice.stages.layout import (
    Frame,
    empty_lut,
    load_faces,
    node_key,
    node_of,
    save_faces,
    save_value,
    take,
)


@dataclass(frozen=True)
class DustBlocks:
    """The LUTs of a cut to LUTs without small segments."""

    cut: CutBlocks
    rule: DustRule
    folder: str
    fingerprint: str
    peak_bytes: int

    name = "dust"
    resource: Resource = field(default="CPU", init=False)
    seconds_per_task = 1.0

    @property
    def agglomerated(self) -> AgglomerateBlocks:
        """What was cut."""
        return self.cut.agglomerated

    @property
    def _frame(self) -> Frame:
        return self.agglomerated.frame

    @cached_property
    def n_tasks(self) -> int:
        """Nodes of the octree, up and down."""
        return 2 * self.cut.n_tasks

    def waves(self) -> Iterator[Iterable[str]]:
        tree = self._frame.octree
        for level in range(tree.root.level + 1):
            yield (f"up/{node_key(node)}" for node in tree.nodes(level))
        for level in range(tree.root.level, -1, -1):
            yield (f"down/{node_key(node)}" for node in tree.nodes(level))

    def prepare(self) -> None:
        Path(self.folder).mkdir(parents=True, exist_ok=True)

    @contextmanager
    def open(self) -> Iterator[Process]:
        def process(key: str) -> dict[str, Any]:
            way, name = key.split("/", 1)
            node = node_of(name)
            if way == "up":
                return self._up(node)
            return {"lut": self._down(node)}

        yield process

    def _file(self, way: str, node: Node, kind: str) -> Path:
        return Path(self.folder) / way / node_key(node) / f"{kind}.npz"

    def _up(self, node: Node) -> dict[str, Any]:
        """Settle what a node can; returns how many segments went."""
        part = self._leaf(node) if node.level == 0 else self._join(node)
        settled = part.settled
        save_faces(self._file("up", node, "faces"), part.faces)
        sizes, targets = settled.sizes, settled.targets
        save_value(
            self._file("up", node, "settled"), settled.rows, names=sizes.names,
            voxels=sizes.voxels, small=targets.fragments, becomes=targets.segments,
        )  # fmt: skip
        return {"joined": settled.joined, "dropped": settled.dropped, "open": len(settled.rows)}

    def _leaf(self, node: Node) -> NodeDust:
        fragments, index = self.agglomerated.stitched.fragments, node.index
        _, ids = fragments.ends(index)
        rows, faces = fragments.plain_contacts(index), fragments.faces(index)
        voxels, segments = fragments.voxels(index), self.cut.lut(index)
        return leaf_dust(ids, voxels, rows, faces, segments, self._frame.box, self.rule)

    def _join(self, node: Node) -> NodeDust:
        tree = self._frame.octree
        children = [self._load(child) for child in tree.children(node)]
        return join_dust(children, tree.box(node), self._frame.box, self.rule)

    def _load(self, node: Node) -> NodeDust:
        faces = load_faces(self._file("up", node, "faces"), self._frame.octree.box(node))
        return NodeDust(self._settled(node), faces)

    def _settled(self, node: Node) -> Settled:
        arrays = load_arrays(self._file("up", node, "settled"))
        targets = Lut(arrays["small"], arrays["becomes"])
        sizes = Sizes(arrays["names"], arrays["voxels"])
        return Settled(targets, sizes, take(Contacts, arrays))

    def _down(self, node: Node) -> str:
        """Table of a node, through its parent's; returns the digest of the table."""
        parent = self._frame.octree.parent(node)
        above = empty_lut()
        if parent is not None:
            above = take(Lut, load_arrays(self._file("down", parent, "lut")))
        table = dust_below(self._settled(node), above)
        if node.level == 0:
            labels = self.cut.lut(node.index)
            table = labels.then(table).of(labels.fragments)
        save_value(self._file("down", node, "lut"), table)
        return lut_digest(table)

    def leaf_digests(self, facts: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
        """Digest of each block's table, by block, from the facts of all tasks."""
        prefix = "down/0/"
        return {key[len(prefix) :]: f["lut"] for key, f in facts if key.startswith(prefix)}

    def lut(self, index: Index) -> Lut:
        """Labels of a block -> segments without small ones."""
        return take(Lut, load_arrays(self._file("down", Node(0, index), "lut")))
