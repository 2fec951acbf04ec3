"""Fragments, stitching, agglomeration and LUTs as stages over blocks and nodes of the octree.

Each task reads what earlier tasks stored, calls one step of ``blockwise.py`` and stores the value.
A file is written atomically and by one task only; any task may run twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.geometry.boxes import clip, within
from emslice.geometry.grid import Index
from emslice.geometry.octree import Node
from emslice.ledger.arrays import load_arrays
from emslice.ledger.merges import load_merges, save_merges
from emslice.ops import stitch
from emslice.ops.contacts import Contacts
from emslice.ops.linkage import Linkage
from emslice.ops.lut import Lut
from emslice.ops.open_graph import Decided, OpenGraph
from emslice.stages.blockwise import (
    NodeGraph,
    fragment_block,
    join_graph,
    leaf_graph,
    lut_below,
)
from emslice.stages.layout import (
    Frame,
    empty_lut,
    index_of,
    key_of,
    load_faces,
    node_key,
    node_of,
    save_faces,
    save_value,
    take,
)
from emslice.stages.tiles import StoredAffinities, TiledAffinities
from emslice.volumes import create_volume, open_volume

Process = Callable[[str], dict[str, Any]]


@dataclass(frozen=True)
class FragmentBlocks:
    """Affinities to fragments, with what neighbours need to know of each block."""

    frame: Frame
    affinities: TiledAffinities | StoredAffinities
    radius: int
    folder: str
    fingerprint: str
    peak_bytes: int

    name = "fragments"
    resource = "CPU"

    @property
    def path(self) -> Path:
        """Labels of all blocks; the chunks are the blocks."""
        return Path(self.folder) / "fragments.zarr"

    @property
    def n_tasks(self) -> int:
        """Blocks."""
        return len(self.frame.grid)

    def waves(self) -> Iterator[Iterable[str]]:
        yield (key_of(index) for index in self.frame.grid)

    def prepare(self) -> None:
        if self.path.exists():
            return
        frame = self.frame
        create_volume(
            self.path,
            shape=frame.box.shape,
            dtype="uint64",
            chunk_shape=[min(b, n) for b, n in zip(frame.block_shape, frame.roi[1], strict=True)],
            offset=frame.box.begin,
            domain_shape=frame.domain_shape,
            resolution_nm=frame.resolution_nm,
            attributes={"fingerprint": self.fingerprint},
        )

    @contextmanager
    def open(self) -> Iterator[Process]:
        frame, grid = self.frame, self.frame.grid
        volume = open_volume(self.path, writable=True)

        def process(key: str) -> dict[str, Any]:
            index = index_of(key)
            block, read = grid.block(index), grid.read(index, (0, self.radius, self.radius))
            codes = self.affinities.read(read)
            part = fragment_block(codes, read, block, frame.domain, self.radius)
            volume.write(block, part.labels)
            save_faces(self.file(index, "faces"), part.faces)
            save_value(self.file(index, "rows"), part.rows, exits=part.fragments.exits,
                       ids=part.fragments.ids)  # fmt: skip
            return {"fragments": part.fragments.n_roots, "edges": len(part.rows)}

        yield process

    def file(self, index: Index, kind: str) -> Path:
        """Where a block keeps its faces or its rows, exits and ids."""
        return Path(self.folder) / "blocks" / key_of(index) / f"{kind}.npz"


@dataclass(frozen=True)
class StitchBlocks:
    """Exits to roots: up the octree, then down to a table for each block."""

    fragments: FragmentBlocks
    folder: str
    fingerprint: str
    peak_bytes: int

    name = "stitch"
    resource = "CPU"

    @property
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
            else:
                self._down(node)
            return {}

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
            exits = load_arrays(self.fragments.file(node.index, "rows"))["exits"]
            return stitch.leaf(exits, load_faces(self.fragments.file(node.index, "faces"), box))
        arrays = load_arrays(self._file("up", node, "links"))
        faces = load_faces(self._file("up", node, "faces"), box)
        return stitch.Stitch(take(Lut, arrays), arrays["exits"], faces)

    def _down(self, node: Node) -> None:
        """Table of a node's own exits; an inner node's is found through its parent's."""
        parent = self.fragments.frame.octree.parent(node)
        table = empty_lut()
        if parent is not None:
            above = self.lut(parent)
            links = take(Lut, load_arrays(self._file("up", parent, "links")))
            exits = (
                load_arrays(self.fragments.file(node.index, "rows"))
                if node.level == 0
                else load_arrays(self._file("up", node, "links"))
            )["exits"]
            exits.sort()
            table = stitch.resolve_down(links, above).of(exits)
        save_value(self._file("down", node, "lut"), table)

    def lut(self, node: Node) -> Lut:
        """Exits of a node -> roots."""
        return take(Lut, load_arrays(self._file("down", node, "lut")))


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
    resource = "CPU"

    @property
    def frame(self) -> Frame:
        """Box, blocks and octree of the run."""
        return self.stitched.fragments.frame

    @property
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
    resource = "CPU"

    @property
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


@dataclass(frozen=True)
class RelabelChunks:
    """Fragments and LUTs to the segmentation; a task is whole chunks of the output."""

    cut: CutBlocks
    folder: str
    chunk_shape: tuple[int, int, int]
    fingerprint: str
    peak_bytes: int

    name = "relabel"
    resource = "CPU"

    @property
    def path(self) -> Path:
        """The segmentation."""
        return Path(self.folder) / "segmentation.zarr"

    @property
    def _frame(self) -> Frame:
        return self.cut.agglomerated.frame

    @property
    def _tasks(self) -> Frame:
        """Boxes of whole chunks, about as large as a block, whatever shape the blocks have."""
        z, y, x = (
            chunk * max(1, round(block / chunk))
            for chunk, block in zip(self.chunk_shape, self._frame.block_shape, strict=True)
        )
        return Frame(self._frame.roi, self._frame.domain_shape, (z, y, x), None)

    @property
    def n_tasks(self) -> int:
        """Boxes of chunks."""
        return len(self._tasks.grid)

    def waves(self) -> Iterator[Iterable[str]]:
        yield (key_of(index) for index in self._tasks.grid)

    def prepare(self) -> None:
        if self.path.exists():
            return
        frame = self._frame
        create_volume(
            self.path,
            shape=frame.box.shape,
            dtype="uint64",
            chunk_shape=[min(c, n) for c, n in zip(self.chunk_shape, frame.roi[1], strict=True)],
            offset=frame.box.begin,
            domain_shape=frame.domain_shape,
            resolution_nm=frame.resolution_nm,
            attributes={"fingerprint": self.fingerprint},
        )

    @contextmanager
    def open(self) -> Iterator[Process]:
        grid = self._frame.grid
        fragments = open_volume(self.cut.agglomerated.stitched.fragments.path)
        segments = open_volume(self.path, writable=True)

        def process(key: str) -> dict[str, Any]:
            box = self._tasks.grid.block(index_of(key))
            labels = fragments.read(box)
            for index in grid.meeting(box):
                part = within(clip(grid.block(index), box), box)
                labels[part] = self.cut.lut(index).apply(labels[part])
            segments.write(box, labels)
            return {}

        yield process
