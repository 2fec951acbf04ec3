"""Merges up the octree, and look-up tables back down at a threshold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from emslice.ops.contacts import Contacts
from emslice.ops.histograms import Histograms
from emslice.ops.linkage import Linkage
from emslice.ops.lut import Lut
from emslice.ops.open_graph import Decided, OpenGraph
from emslice.stages.blockwise import (
    NodeGraph,
    join_graph,
    leaf_graph,
    lut_below,
)
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
            decided = self._leaf(node) if node.level == 0 else self._join(node)
            save_faces(self.file(node, "faces.npz"), decided.faces)
            save_value(
                self.file(node, "rest.npz"),
                decided.decided.rest,
                open_names=decided.decided.open_names,
            )
            save_merges(self.file(node, "merges.parquet"), decided.decided.merges)
            return {
                "merges": len(decided.decided.merges.child),
                "open_names": len(decided.decided.open_names),
                "open_edges": len(decided.decided.rest),
            }

        yield process

    def file(self, node: Node, name: str) -> Path:
        """Where a node keeps a table."""
        return Path(self.folder) / "nodes" / node_key(node) / name

    def _leaf(self, node: Node) -> NodeGraph:
        files, box = self.stitched.fragments.file, self.frame.octree.box(node)
        rows = take(Contacts, load_arrays(files(node.index, "rows")))
        if self.linkage.needs_histograms:
            own = take(Histograms, load_arrays(files(node.index, "histograms")))
            rows = replace(rows, histograms=own)
        faces = load_faces(files(node.index, "faces"), box)
        exits = self.stitched.lut(node)
        return leaf_graph(rows, faces, exits, self.frame.box, self.lowest, self.linkage)

    def _join(self, node: Node) -> NodeGraph:
        children = [self._load(child) for child in self.frame.octree.children(node)]
        box = self.frame.octree.box(node)
        return join_graph(children, box, self.frame.box, self.lowest, self.linkage)

    def _load(self, node: Node) -> NodeGraph:
        arrays = load_arrays(self.file(node, "rest.npz"))
        faces = load_faces(self.file(node, "faces.npz"), self.frame.octree.box(node))
        merges = load_merges(self.file(node, "merges.parquet"))
        return NodeGraph(Decided(merges, take(OpenGraph, arrays), arrays["open_names"]), faces)


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
            merges = load_merges(self.agglomerated.file(node, "merges.parquet"))
            table = lut_below(merges, self._above(node), self.threshold)
            segments = 0
            if node.level == 0:
                stitched = self.agglomerated.stitched
                ids = load_arrays(stitched.fragments.file(node.index, "rows"))["ids"][1:]
                table = stitched.lut(node).then(table)
                segments = self._count(node, ids, table)
                table = table.of(np.sort(ids))
            save_value(self.file(node), table)
            return {"segments": segments}

        yield process

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
        names = load_arrays(self.agglomerated.file(node, "rest.npz"))["open_names"]
        return take(Lut, load_arrays(self.file(parent))).of(names)

    def lut(self, index: Index) -> Lut:
        """Labels of a block -> segments."""
        return take(Lut, load_arrays(self.file(Node(0, index))))
