"""Exits to roots: up the octree, then down to a table for each block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from emslice.engine.stage import Process, Resource
from emslice.geometry.octree import Node
from emslice.ledger.arrays import load_arrays
from emslice.ops import stitch
from emslice.ops.lut import Lut
from emslice.stages.fragments import FragmentBlocks
from emslice.stages.holes import lut_digest
from emslice.stages.layout import (
    empty_lut,
    load_faces,
    node_key,
    node_of,
    save_faces,
    save_value,
    take,
)


@dataclass(frozen=True)
class StitchBlocks:
    """Exits to roots: up the octree, then down to a table for each block."""

    fragments: FragmentBlocks
    folder: str
    fingerprint: str
    peak_bytes: int

    name = "stitch"
    resource: Resource = field(default="CPU", init=False)
    seconds_per_task = 1.0

    @cached_property
    def n_tasks(self) -> int:
        """Inner nodes up, all nodes down."""
        tree = self.fragments.frame.octree
        inner = sum(1 for level in range(1, tree.root.level + 1) for _ in tree.nodes(level))
        return 2 * inner + self.fragments.n_tasks

    def waves(self) -> Iterator[Iterable[str]]:
        tree = self.fragments.frame.octree
        for level in range(1, tree.root.level + 1):
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
                self._up(node)
                return {}
            return {"lut": self._down(node)}

        yield process

    def _file(self, way: str, node: Node, kind: str) -> Path:
        return Path(self.folder) / way / node_key(node) / f"{kind}.npz"

    def _up(self, node: Node) -> None:
        frame = self.fragments.frame
        children = [self._load(child) for child in frame.octree.children(node)]
        joined = stitch.join(children, frame.octree.box(node), frame.domain)
        save_faces(self._file("up", node, "faces"), joined.faces)
        save_value(self._file("up", node, "links"), joined.links, exits=joined.exits)

    def _load(self, node: Node) -> stitch.Stitch:
        box = self.fragments.frame.octree.box(node)
        if node.level == 0:
            exits, _ = self.fragments.ends(node.index)
            return stitch.leaf(exits, self.fragments.faces(node.index))
        arrays = load_arrays(self._file("up", node, "links"))
        faces = load_faces(self._file("up", node, "faces"), box)
        return stitch.Stitch(take(Lut, arrays), arrays["exits"], faces)

    def _down(self, node: Node) -> str:
        """Table of a node's own exits, through its parent's; returns the digest of the table."""
        parent = self.fragments.frame.octree.parent(node)
        table = empty_lut()
        if parent is not None:
            above = self.lut(parent)
            links = take(Lut, load_arrays(self._file("up", parent, "links")))
            if node.level == 0:
                exits, _ = self.fragments.ends(node.index)
            else:
                exits = load_arrays(self._file("up", node, "links"))["exits"]
            exits.sort()
            table = stitch.resolve_down(links, above).of(exits)
        save_value(self._file("down", node, "lut"), table)
        return lut_digest(table)

    def leaf_digests(self, facts: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
        """Digest of each block's table, by block, from the facts of all tasks."""
        prefix = "down/0/"
        return {key[len(prefix) :]: f["lut"] for key, f in facts if key.startswith(prefix)}

    def lut(self, node: Node) -> Lut:
        """Exits of a node -> roots."""
        return take(Lut, load_arrays(self._file("down", node, "lut")))
