"""Passes that go up the octree, joining what children have, and down to a table for each block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from emslice.engine.stage import Process, Resource
from emslice.geometry.octree import Node
from emslice.ledger.arrays import load_arrays
from emslice.ops.lut import Lut
from emslice.stages.holes import lut_digest
from emslice.stages.layout import Frame, node_key, node_of, save_value, take


@dataclass(frozen=True)
class UpAndDown(ABC):
    """A stage with a task for each node on the way up, and one on the way down.

    Files lie under the way, the node and what they hold.
    """

    folder: str
    fingerprint: str
    peak_bytes: int

    first_level: ClassVar[int]
    """Where the way up begins: 0 with the blocks, 1 with their parents."""

    resource: Resource = field(default="CPU", init=False)
    seconds_per_task = 1.0

    @property
    @abstractmethod
    def frame(self) -> Frame:
        """Box, blocks and octree."""

    @abstractmethod
    def up(self, node: Node) -> dict[str, Any]:
        """Make what a node hands to its parent; returns facts."""

    @abstractmethod
    def down(self, node: Node) -> Lut:
        """Table of a node, through its parent's."""

    @cached_property
    def n_tasks(self) -> int:
        """Nodes up and nodes down."""
        return sum(1 for wave in self.waves() for _ in wave)

    def waves(self) -> Iterator[Iterable[str]]:
        tree = self.frame.octree
        for level in range(self.first_level, tree.root.level + 1):
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
                return self.up(node)
            table = self.down(node)
            save_value(self.file("down", node, "lut"), table)
            return {"lut": lut_digest(table)}

        yield process

    def file(self, way: str, node: Node, kind: str) -> Path:
        """Where a node's arrays of a kind lie."""
        return Path(self.folder) / way / node_key(node) / f"{kind}.npz"

    def leaf_digests(self, facts: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
        """Digest of each block's table, by block, from the facts of all tasks."""
        prefix = "down/0/"
        return {key[len(prefix) :]: f["lut"] for key, f in facts if key.startswith(prefix)}

    def table(self, node: Node) -> Lut:
        """What `down` found."""
        return take(Lut, load_arrays(self.file("down", node, "lut")))
