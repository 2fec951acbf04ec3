"""Merges up the octree, and look-up tables back down at a threshold."""

from __future__ import annotations

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
from emslice.ledger.arrays import load_arrays
from emslice.ledger.merges import load_merges, save_merges
from emslice.ops.linkage import Linkage
from emslice.ops.lut import Lut
from emslice.ops.merge_tree import MergeTree
from emslice.ops.open_graph import Decided, OpenGraph
from emslice.stages.blockwise import NodeGraph, join_graph, leaf_graph, lut_below
from emslice.stages.holes import INPUTS, digest_of, lut_digest
from emslice.stages.layout import (
    Frame,
    empty_lut,
    key_of,
    load_faces,
    node_key,
    node_of,
    save_faces,
    save_value,
    take,
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
            graph = self._leaf(node) if node.level == 0 else self._join(node)
            decided = graph.decided
            save_faces(self.file(node, "faces.npz"), graph.faces)
            save_value(
                self.file(node, "rest.npz"), decided.rest, open_names=decided.open_names,
                inputs=np.frombuffer(inputs.encode(), np.uint8),
            )  # fmt: skip
            save_merges(self.file(node, "merges.parquet"), decided.merges)
            return {
                "merges": len(decided.merges.child),
                "open_names": len(decided.open_names),
                "open_edges": len(decided.rest),
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
            return self._leaf_inputs(node, lut_digest(self.stitched.lut(node)))
        return digest_of(*(self._stored_inputs(c) for c in self.frame.octree.children(node)))

    def _stored_inputs(self, node: Node) -> str:
        if self._is_hole(node):
            return "hole"
        return load_arrays(self.file(node, "rest.npz"))["inputs"].tobytes().decode()

    def _is_hole(self, node: Node) -> bool:
        return node.level == 0 and node.index in self.stitched.fragments.holes.blocks

    def _leaf(self, node: Node) -> NodeGraph:
        fragments = self.stitched.fragments
        rows, faces = fragments.contacts(node.index), fragments.faces(node.index)
        exits = self.stitched.lut(node)
        return leaf_graph(rows, faces, exits, self.frame.box, self.lowest, self.linkage)

    def _join(self, node: Node) -> NodeGraph:
        children = [self._load(child) for child in self.frame.octree.children(node)]
        box = self.frame.octree.box(node)
        return join_graph(children, box, self.frame.box, self.lowest, self.linkage)

    def _load(self, node: Node) -> NodeGraph:
        if self._is_hole(node):
            return self._leaf(node)
        arrays = load_arrays(self.file(node, "rest.npz"))
        faces = load_faces(self.file(node, "faces.npz"), self.frame.octree.box(node))
        decided = Decided(self.merges(node), take(OpenGraph, arrays), arrays["open_names"])
        return NodeGraph(decided, faces)

    def merges(self, node: Node) -> MergeTree:
        """What a node merged."""
        if self._is_hole(node):
            return self._leaf(node).decided.merges
        return load_merges(self.file(node, "merges.parquet"))

    def open_names(self, node: Node) -> NDArray[np.uint64]:
        """What a node left to its parent, ascending."""
        if self._is_hole(node):
            return self._leaf(node).decided.open_names
        return load_arrays(self.file(node, "rest.npz"))["open_names"]


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
            segments = 0
            if node.level == 0:
                stitched = self.agglomerated.stitched
                ids = stitched.fragments.ends(node.index)[1][1:]
                table = stitched.lut(node).then(table)
                segments = self._count(node, ids, table)
                table = table.of(np.sort(ids))
            save_value(self.file(node), table)
            return {"segments": segments, "lut": lut_digest(table)}

        yield process

    def leaf_digests(self, facts: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
        """Digest of each block's table, by block, from the facts of all tasks."""
        return {key[2:]: f["lut"] for key, f in facts if key.startswith("0/")}

    def _count(self, node: Node, ids: NDArray[np.uint64], table: Lut) -> int:
        """Segments that are named by a root of the block: each is counted in one block."""
        exits = self.agglomerated.stitched.lut(node).fragments
        roots = ids[: len(ids) - len(exits)]
        return int((table.apply(roots) == roots).sum())

    def file(self, node: Node) -> Path:
        """Table of a node: names -> segments; of a block: labels -> segments."""
        return Path(self.folder) / "luts" / f"{node_key(node)}.npz"

    def _above(self, node: Node) -> Lut:
        """Segments of a node's open names, from its parent's table."""
        parent = self.agglomerated.frame.octree.parent(node)
        if parent is None:
            return empty_lut()
        names = self.agglomerated.open_names(node)
        return take(Lut, load_arrays(self.file(parent))).of(names)

    def lut(self, index: Index) -> Lut:
        """Labels of a block -> segments."""
        return take(Lut, load_arrays(self.file(Node(0, index))))
