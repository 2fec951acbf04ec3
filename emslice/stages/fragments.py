"""Fragments of each block: affinities in, labels and what neighbours need to know out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from emslice.engine.stage import Process, Resource
from emslice.geometry.grid import Index
from emslice.stages.blockwise import (
    fragment_block,
)
from emslice.stages.fragment_methods import INVARIANT
from emslice.stages.layout import (
    Frame,
    create_labels,
    index_of,
    key_of,
    save_faces,
    save_value,
)
from emslice.stages.tiles import StoredAffinities, TiledAffinities
from emslice.volumes import open_volume


@dataclass(frozen=True)
class FragmentBlocks:
    """Affinities to fragments, with what neighbours need to know of each block."""

    frame: Frame
    affinities: TiledAffinities | StoredAffinities
    radius: int
    """Halo of the stage, voxels: the cap of the distance; 0 where a block is seen alone."""

    folder: str
    fingerprint: str
    peak_bytes: int
    method: str = INVARIANT

    name = "fragments"
    resource: Resource = field(default="CPU", init=False)
    seconds_per_task = 1.0

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
            block, read = grid.block(index), grid.read(index, (0, self.radius, self.radius))
            codes = self.affinities.read(read)
            part = fragment_block(codes, read, block, frame.domain, self.radius, method=self.method)
            volume.write(block, part.labels)
            save_faces(self.file(index, "faces"), part.faces)
            save_value(self.file(index, "rows"), part.rows, exits=part.fragments.exits,
                       ids=part.fragments.ids)  # fmt: skip
            return {
                "fragments": part.fragments.n_roots,
                "edges": len(part.rows),
                "masked": int((part.fragments.labels == 0).sum()),
            }

        yield process

    def file(self, index: Index, kind: str) -> Path:
        """Where a block keeps its faces or its rows, exits and ids."""
        return Path(self.folder) / "blocks" / key_of(index) / f"{kind}.npz"
