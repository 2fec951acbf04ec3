"""Where the stages of a run in blocks keep what they make, and how tables become values again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from emslice.geometry.boxes import Coordinate, Roi
from emslice.geometry.grid import BlockGrid, Index
from emslice.geometry.octree import Node, Octree
from emslice.ledger.arrays import load_arrays, save_arrays
from emslice.ops.contacts import Contacts
from emslice.ops.faces import AXES, Faces, Sides
from emslice.ops.histograms import Histograms
from emslice.ops.lut import Lut
from emslice.ops.open_graph import OpenGraph
from emslice.volumes import create_volume


@dataclass(frozen=True)
class Frame:
    """The box of a run, its blocks and its octree; plain values, so that it pickles."""

    roi: tuple[tuple[int, int, int], tuple[int, int, int]]
    """Begin and shape."""

    domain_shape: tuple[int, int, int]
    block_shape: tuple[int, int, int]
    resolution_nm: tuple[float, float, float] | None

    @property
    def box(self) -> Roi:
        """The ROI of the run."""
        return Roi(*self.roi)

    @property
    def domain(self) -> Roi:
        """Full extent of the raw volume."""
        return Roi((0, 0, 0), self.domain_shape)

    @property
    def grid(self) -> BlockGrid:
        """Blocks of every stage but predict and relabel."""
        return BlockGrid(self.box, Coordinate(self.block_shape))

    @property
    def octree(self) -> Octree:
        """The tree over the blocks."""
        return Octree(self.grid)


def key_of(index: Iterable[int]) -> str:
    """Name of a block or tile.

    >>> key_of((0, 3, 1)), index_of("0_3_1")
    ('0_3_1', (0, 3, 1))
    """
    return "_".join(str(i) for i in index)


def index_of(key: str) -> Index:
    """Place of a block from its name."""
    z, y, x = (int(part) for part in key.split("_"))
    return z, y, x


def node_key(node: Node) -> str:
    """Name of a node of the octree.

    >>> node_key(Node(2, (0, 0, 1))), node_of("2/0_0_1") == Node(2, (0, 0, 1))
    ('2/0_0_1', True)
    """
    return f"{node.level}/{key_of(node.index)}"


def node_of(key: str) -> Node:
    """Node from its name."""
    level, index = key.split("/")
    return Node(int(level), index_of(index))


def save_faces(path: Path, faces: Faces) -> None:
    """Write the six planes of a box."""
    planes = {
        f"{name}{axis}": getattr(faces, name)[axis]
        for name in ("lower", "codes", "upper")
        for axis in AXES
    }
    save_arrays(path, **planes)


def load_faces(path: Path, box: Roi) -> Faces:
    """Planes that `save_faces` wrote."""
    planes = load_arrays(path)
    lower, codes, upper = (
        tuple(planes[f"{name}{axis}"] for axis in AXES) for name in ("lower", "codes", "upper")
    )
    return Faces(box, lower, codes, upper)


def load_plane(path: Path, name: str, axis: int) -> NDArray[Any]:
    """One of the planes that `save_faces` wrote; the others are not read."""
    return load_arrays(path, f"{name}{axis}")[f"{name}{axis}"]


def side_arrays(sides: Sides) -> dict[str, NDArray[np.uint64]]:
    """Sides as named arrays."""
    lower = {f"lower{axis}": sides.lower[axis] for axis in AXES}
    return lower | {f"upper{axis}": sides.upper[axis] for axis in AXES}


def take_sides(arrays: dict[str, NDArray[Any]], box: Roi) -> Sides:
    """Sides from named arrays."""
    lower, upper = (tuple(arrays[f"{n}{axis}"] for axis in AXES) for n in ("lower", "upper"))
    return Sides(box, lower, upper)


def save_value(
    path: Path, value: Contacts | Histograms | OpenGraph | Lut, **more: NDArray[Any]
) -> None:
    """Write the columns of a table, and more arrays beside them; histograms go to another file."""
    save_arrays(path, **{f.name: getattr(value, f.name) for f in _columns(value)}, **more)


T = TypeVar("T", Contacts, Histograms, OpenGraph, Lut)


def take(kind: type[T], arrays: dict[str, NDArray[Any]]) -> T:
    """Table of a kind from the arrays of a file."""
    columns: dict[str, Any] = {f.name: arrays[f.name] for f in _columns(kind)}
    return kind(**columns)


def _columns(table: Any) -> list[Field[Any]]:
    """Fields of a table that are arrays; its histograms are a table of their own."""
    return [f for f in fields(table) if f.name != "histograms"]


def empty_lut() -> Lut:
    """The table that changes nothing."""
    return Lut(np.zeros(0, np.uint64), np.zeros(0, np.uint64))


def create_labels(path: Path, frame: Frame, chunk_shape: Sequence[int], fingerprint: str) -> None:
    """A volume of ids over the run's box; one that is there already stays as it is."""
    if path.exists():
        return
    create_volume(
        path,
        shape=frame.box.shape,
        dtype="uint64",
        chunk_shape=[min(c, n) for c, n in zip(chunk_shape, frame.roi[1], strict=True)],
        offset=frame.box.begin,
        domain_shape=frame.domain_shape,
        resolution_nm=frame.resolution_nm,
        attributes={"fingerprint": fingerprint},
    )
