"""Fragments of each block: affinities in, labels and what neighbours need to know out."""

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
from emslice.geometry.boxes import Coordinate, Roi
from emslice.geometry.grid import Index
from emslice.ledger.arrays import load_arrays
from emslice.ops.contacts import Contacts, combine
from emslice.ops.faces import Faces, cut_faces
from emslice.ops.histograms import Histograms
from emslice.stages.blockwise import fragment_block
from emslice.stages.fragment_methods import INVARIANT, halo_of
from emslice.stages.holes import INPUTS, Holes
from emslice.stages.layout import (
    Frame,
    create_labels,
    index_of,
    key_of,
    load_faces,
    save_faces,
    save_value,
    take,
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
    """Cap of rainfall's distance, voxels; other methods do not look at it."""

    folder: str
    fingerprint: str
    peak_bytes: int
    holes: Holes
    dimensions: int = 2
    histograms: bool = False
    """Whether the linkage needs them."""

    method: str = INVARIANT

    name = "fragments"
    resource: Resource = field(default="CPU", init=False)
    seconds_per_task = 1.0

    @property
    def halo(self) -> tuple[int, int, int]:
        """Voxels read beyond a block."""
        return halo_of(self.method, self.radius, self.dimensions)

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
                codes,
                read,
                block,
                frame.domain,
                self.radius,
                dimensions=self.dimensions,
                histograms=self.histograms,
                method=self.method,
            )
            volume.write(block, part.labels)
            save_faces(self.file(index, "faces"), part.faces)
            save_value(self.file(index, "rows"), part.rows, exits=part.fragments.exits,
                       ids=part.fragments.ids, voxels=part.fragments.voxels)  # fmt: skip
            if self.histograms:
                save_value(self.file(index, "histograms"), part.rows.histograms)
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

    def readers(self, box: Roi) -> Iterator[Index]:
        """Blocks that read a part of a box, in order."""
        halo = Coordinate(self.halo)
        return self.frame.grid.meeting(box.grow(halo, halo))

    def inputs(self, index: Index) -> str:
        """Which holes a block sees."""
        return self.holes.seen_in(self.read_box(index))

    def expected(self) -> Iterator[tuple[str, str]]:
        """What the record of each task must say that it read."""
        for index in self.frame.grid:
            yield key_of(index), self.inputs(index)

    def file(self, index: Index, kind: str) -> Path:
        """Where a block keeps its faces, its rows, exits, ids and voxels, or its histograms."""
        return Path(self.folder) / "blocks" / key_of(index) / f"{kind}.npz"

    def ends(self, index: Index) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Exits of a block, and ids: 0, then those of its roots and exits; of a hole, of none."""
        if index in self.holes.blocks:
            return np.zeros(0, np.uint64), np.zeros(1, np.uint64)
        arrays = load_arrays(self.file(index, "rows"))
        return arrays["exits"], arrays["ids"]

    def voxels(self, index: Index) -> NDArray[np.int64]:
        """Voxels in a block of each of the ids that `ends` gives."""
        if index in self.holes.blocks:
            return np.zeros(1, np.int64)
        arrays = load_arrays(self.file(index, "rows"))
        if "voxels" in arrays:
            return arrays["voxels"]
        # Fragments of a version that did not count them.
        order, labels = np.argsort(arrays["ids"]), open_volume(self.path)
        values = labels.read(self.frame.grid.block(index)).ravel()
        place = np.searchsorted(arrays["ids"], values, sorter=order)
        return np.bincount(order[place], minlength=len(order))

    def plain_contacts(self, index: Index) -> Contacts:
        """Rows of a block without histograms; of a hole, none."""
        if index in self.holes.blocks:
            return combine([])
        return take(Contacts, load_arrays(self.file(index, "rows")))

    def contacts(self, index: Index) -> Contacts:
        """Rows of a block, with histograms if the linkage needs them; of a hole, none."""
        rows = self.plain_contacts(index)
        if not self.histograms or index in self.holes.blocks:
            return rows
        own = take(Histograms, load_arrays(self.file(index, "histograms")))
        return replace(rows, histograms=own)

    def faces(self, index: Index) -> Faces:
        """Faces of a block; all 0 in a hole."""
        box = self.frame.grid.block(index)
        if index not in self.holes.blocks:
            return load_faces(self.file(index, "faces"), box)
        shape = tuple(int(n) for n in box.shape)
        return cut_faces(np.zeros(shape, np.uint64), np.zeros((3, *shape), np.uint8), box)
