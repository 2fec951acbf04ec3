"""Merges up the octree, and look-up tables back down at a threshold."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.engine.stage import Process, Resource
from emslice.geometry.grid import Index
from emslice.geometry.octree import Node
from emslice.ledger.arrays import load_arrays, save_arrays
from emslice.ledger.merges import load_merges, save_merges
from emslice.ledger.rows import save_rows
from emslice.ops.faces import Sides, join_sides, touching
from emslice.ops.ladder import Climbed
from emslice.ops.linkage import Linkage
from emslice.ops.lut import Lut
from emslice.ops.merge_tree import MergeTree
from emslice.stages.blockwise import ThreePlanes, graphs_across, leaf_graph, lut_below
from emslice.stages.bounded import decide_stored
from emslice.stages.holes import INPUTS, digest_of, lut_digest
from emslice.stages.layout import (
    Frame,
    empty_lut,
    key_of,
    load_plane,
    node_key,
    node_of,
    save_faces,
    save_value,
    side_arrays,
    take,
    take_sides,
)
from emslice.stages.stitching import StitchBlocks


@dataclass(frozen=True)
class AgglomerateBlocks:
    """Region graph to merges, up the octree."""

    stitched: StitchBlocks
    linkage: Linkage
    lowest: int
    folder: str
    fingerprint: str
    peak_bytes: int
    node_memory: int
    """Bytes that the graph of a node above the blocks may take; more goes down the ladder."""

    name = "agglomerate"
    resource: Resource = field(default="CPU", init=False)
    seconds_per_task = 1.0

    @property
    def frame(self) -> Frame:
        """Box, blocks and octree of the run."""
        return self.stitched.fragments.frame

    @cached_property
    def n_tasks(self) -> int:
        """Nodes of the octree."""
        tree = self.frame.octree
        return sum(1 for level in range(tree.root.level + 1) for _ in tree.nodes(level))

    def waves(self) -> Iterator[Iterable[str]]:
        tree = self.frame.octree
        for level in range(tree.root.level + 1):
            yield (node_key(node) for node in tree.nodes(level))

    def prepare(self) -> None:
        Path(self.folder).mkdir(parents=True, exist_ok=True)

    @contextmanager
    def open(self) -> Iterator[Process]:
        def process(key: str) -> dict[str, Any]:
            node = node_of(key)
            inputs = self._inputs(node)
            found, sides = self._leaf(node) if node.level == 0 else self._join(node)
            save_arrays(
                self.file(node, "node.npz"), **side_arrays(sides), open_names=found.open_names,
                inputs=np.frombuffer(inputs.encode(), np.uint8),
            )  # fmt: skip
            n_rows = save_rows(self.file(node, "rest.parquet"), found.rest)
            save_merges(self.file(node, "merges.parquet"), found.merges)
            shutil.rmtree(self.file(node, "scratch"), ignore_errors=True)
            return {
                "merges": len(found.merges.child),
                "open_names": len(found.open_names),
                "open_edges": n_rows,
                INPUTS: inputs,
            }

        yield process

    def file(self, node: Node, name: str) -> Path:
        """Where a node keeps a table."""
        return Path(self.folder) / "nodes" / node_key(node) / name

    def expected(self, luts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """What the record of each task must say that it read.

        Parameters
        ----------
        luts
            Digest of each block's table of exits.
        """
        tree = self.frame.octree
        below: dict[Node, str] = {}
        for level in range(tree.root.level + 1):
            here = {}
            for node in tree.nodes(level):
                if level == 0:
                    here[node] = self._leaf_inputs(node, luts.get(key_of(node.index), ""))
                else:
                    here[node] = digest_of(*(below[child] for child in tree.children(node)))
                yield node_key(node), here[node]
            below = here

    def _leaf_inputs(self, node: Node, lut: str) -> str:
        fragments = self.stitched.fragments
        if node.index in fragments.holes.blocks:
            return "hole"
        return digest_of(fragments.inputs(node.index), lut)

    def _inputs(self, node: Node) -> str:
        """The same from what is stored."""
        if node.level == 0:
            return self._leaf_inputs(node, lut_digest(self.stitched.table(node)))
        return digest_of(*(self._stored_inputs(c) for c in self.frame.octree.children(node)))

    def _stored_inputs(self, node: Node) -> str:
        if self._is_hole(node):
            return "hole"
        return load_arrays(self.file(node, "node.npz"), "inputs")["inputs"].tobytes().decode()

    def _is_hole(self, node: Node) -> bool:
        return node.level == 0 and node.index in self.stitched.fragments.holes.blocks

    def _leaf(self, node: Node) -> tuple[Climbed, Sides]:
        """What a block decides; its faces are kept, resolved, for all nodes above."""
        fragments, exits = self.stitched.fragments, self.stitched.table(node)
        faces = fragments.faces(node.index).relabelled(exits)
        save_faces(self.file(node, "faces.npz"), faces)
        rows = fragments.contacts(node.index)
        graph = leaf_graph(rows, faces, exits, self.frame.box, self.lowest, self.linkage)
        decided = graph.decided
        return Climbed(decided.merges, iter([decided.rest]), decided.open_names), graph.sides

    def _join(self, node: Node) -> tuple[Climbed, Sides]:
        tree = self.frame.octree
        children = [child for child in tree.children(node) if not self._is_hole(child)]
        sides = join_sides([self._sides(child) for child in children], tree.box(node))
        found = decide_stored(
            [self.file(child, "rest.parquet") for child in children],
            graphs_across(tree, node, self._planes, self.linkage),
            touching(sides, self.frame.box),
            self.lowest,
            self.linkage,
            self.node_memory,
            self.file(node, "scratch"),
        )
        return found, sides

    def _sides(self, node: Node) -> Sides:
        return take_sides(load_arrays(self.file(node, "node.npz")), self.frame.octree.box(node))

    def _planes(self, axis: int, before: Index, later: Index) -> ThreePlanes:
        """Planes on both sides of a common face of two blocks."""
        holes = self.stitched.fragments.holes.blocks
        if before in holes or later in holes:  # what is masked touches nothing
            none = np.zeros(0, np.uint64)
            return none, none, np.zeros(0, np.uint8)
        first, last = (self.file(Node(0, index), "faces.npz") for index in (before, later))
        return (
            load_plane(first, "upper", axis),
            load_plane(last, "lower", axis),
            load_plane(last, "codes", axis),
        )

    def merges(self, node: Node) -> MergeTree:
        """What a node merged."""
        if self._is_hole(node):
            none = np.zeros(0, np.uint64)
            return MergeTree(none, none, np.zeros(0, np.int32), self.lowest)
        return load_merges(self.file(node, "merges.parquet"))

    def open_names(self, node: Node) -> NDArray[np.uint64]:
        """What a node left to its parent, ascending."""
        if self._is_hole(node):
            return np.zeros(0, np.uint64)
        return load_arrays(self.file(node, "node.npz"), "open_names")["open_names"]


@dataclass(frozen=True)
class CutBlocks:
    """Merges to a LUT for each block at a threshold, down the octree."""

    agglomerated: AgglomerateBlocks
    threshold: float
    folder: str
    fingerprint: str
    peak_bytes: int

    name = "cut"
    resource: Resource = field(default="CPU", init=False)
    seconds_per_task = 1.0

    @cached_property
    def n_tasks(self) -> int:
        """Nodes of the octree."""
        return self.agglomerated.n_tasks

    def waves(self) -> Iterator[Iterable[str]]:
        tree = self.agglomerated.frame.octree
        for level in range(tree.root.level, -1, -1):
            yield (node_key(node) for node in tree.nodes(level))

    def prepare(self) -> None:
        Path(self.folder).mkdir(parents=True, exist_ok=True)

    @contextmanager
    def open(self) -> Iterator[Process]:
        def process(key: str) -> dict[str, Any]:
            node = node_of(key)
            merges = self.agglomerated.merges(node)
            table = lut_below(merges, self._above(node), self.threshold)
            for child in self.agglomerated.frame.octree.children(node):
                names = self.agglomerated.open_names(child)
                save_value(self._file(child, "open"), table.of(names))
            if node.level > 0:
                return {"segments": 0}  # each is counted in one block
            stitched = self.agglomerated.stitched
            ids = stitched.fragments.ends(node.index)[1][1:]
            table = stitched.table(node).then(table)
            segments = self._count(node, ids, table)
            table = table.of(np.sort(ids))
            save_value(self._file(node, "lut"), table)
            return {"segments": segments, "lut": lut_digest(table)}

        yield process

    def leaf_digests(self, facts: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
        """Digest of each block's table, by block, from the facts of all tasks."""
        return {key[2:]: f["lut"] for key, f in facts if key.startswith("0/")}

    def _count(self, node: Node, ids: NDArray[np.uint64], table: Lut) -> int:
        """Segments that are named by a root of the block."""
        exits = self.agglomerated.stitched.table(node).fragments
        roots = ids[: len(ids) - len(exits)]
        return int((table.apply(roots) == roots).sum())

    def _file(self, node: Node, kind: str) -> Path:
        """Table of a node's open names -> segments, or of a block's labels."""
        return Path(self.folder) / "luts" / node_key(node) / f"{kind}.npz"

    def _above(self, node: Node) -> Lut:
        """Segments of a node's open names, as its parent has left them."""
        if self.agglomerated.frame.octree.parent(node) is None:
            return empty_lut()
        return take(Lut, load_arrays(self._file(node, "open")))

    def lut(self, index: Index) -> Lut:
        """Labels of a block -> segments."""
        return take(Lut, load_arrays(self._file(Node(0, index), "lut")))
