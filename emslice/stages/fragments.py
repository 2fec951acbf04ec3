"""Fragments of each block: affinities in, labels and what neighbours need to know out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.engine.stage import Process, Resource
from emslice.geometry.boxes import Roi
from emslice.geometry.grid import Index
from emslice.ledger.arrays import load_arrays
from emslice.ops.contacts import Contacts, combine
from emslice.ops.faces import Faces, cut_faces
from emslice.ops.fragments import fragment_halo
from emslice.stages.blockwise import fragment_block
from emslice.stages.holes import INPUTS, Holes
from emslice.stages.layout import (
    Frame,
    create_labels,
    index_of,
    key_of,
    load_faces,
    save_faces,
    save_value,
)
from emslice.stages.masking import MaskedAffinities
from emslice.stages.tiles import StoredAffinities, TiledAffinities
from emslice.volumes import open_volume


@dataclass(frozen=True)
class FragmentBlocks:
    """Affinities to fragments, with what neighbours need to know of each block."""

    frame: Frame
    affinities: TiledAffinities | StoredAffinities | MaskedAffinities
    radius: int
    folder: str
    fingerprint: str
    peak_bytes: int
    holes: Holes
    dimensions: int = 2

    name = "fragments"
    resource: Resource = field(default="CPU", init=False)
    seconds_per_task = 1.0

    @property
    def halo(self) -> tuple[int, int, int]:
        """Voxels read beyond a block."""
        return fragment_halo(self.radius, self.dimensions)

    @property
    def path(self) -> Path:
        """Labels of all blocks; the chunks are the blocks."""
        return Path(self.folder) / "fragments.zarr"

    @cached_property
    def n_tasks(self) -> int:
        """Blocks."""
        return len(self.frame.grid)

    def waves(self) -> Iterator[Iterable[str]]:
        yield (key_of(index) for index in self.frame.grid)

    def prepare(self) -> None:
        create_labels(self.path, self.frame, self.frame.block_shape, self.fingerprint)

    @contextmanager
    def open(self) -> Iterator[Process]:
        frame, grid = self.frame, self.frame.grid
        volume = open_volume(self.path, writable=True)

        def process(key: str) -> dict[str, Any]:
            index = index_of(key)
            block, read = grid.block(index), self.read_box(index)
            if index in self.holes.blocks:
                return {INPUTS: self.inputs(index)}
            codes = self.affinities.read(read)
            self.holes.mask(codes, read)
            part = fragment_block(
                codes, read, block, frame.domain, self.radius, dimensions=self.dimensions
            )
            volume.write(block, part.labels)
            save_faces(self.file(index, "faces"), part.faces)
            save_value(self.file(index, "rows"), part.rows, exits=part.fragments.exits,
                       ids=part.fragments.ids)  # fmt: skip
            return {
                "fragments": part.fragments.n_roots,
                "edges": len(part.rows),
                "masked": int((part.fragments.labels == 0).sum()),
                INPUTS: self.inputs(index),
            }

        yield process

    def read_box(self, index: Index) -> Roi:
        """What a block reads."""
        return self.frame.grid.read(index, self.halo)

    def inputs(self, index: Index) -> str:
        """Which holes a block sees."""
        return self.holes.seen_in(self.read_box(index))

    def expected(self) -> Iterator[tuple[str, str]]:
        """What the record of each task must say that it read."""
        for index in self.frame.grid:
            yield key_of(index), self.inputs(index)

    def file(self, index: Index, kind: str) -> Path:
        """Where a block keeps its faces or its rows, exits and ids."""
        return Path(self.folder) / "blocks" / key_of(index) / f"{kind}.npz"

    def rows(self, index: Index) -> dict[str, NDArray[Any]]:
        """Columns of a block's rows, its exits and its ids; those of a masked one in a hole."""
        if index not in self.holes.blocks:
            return load_arrays(self.file(index, "rows"))
        nothing = np.zeros(0, np.uint64)
        columns = {f.name: getattr(combine([]), f.name) for f in fields(Contacts)}
        return {**columns, "exits": nothing, "ids": np.zeros(1, np.uint64)}

    def faces(self, index: Index) -> Faces:
        """Faces of a block; all 0 in a hole."""
        box = self.frame.grid.block(index)
        if index not in self.holes.blocks:
            return load_faces(self.file(index, "faces"), box)
        shape = tuple(int(n) for n in box.shape)
        return cut_faces(np.zeros(shape, np.uint64), np.zeros((3, *shape), np.uint8), box)
