"""Fragments and tables to the segmentation, chunk by chunk of the output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from emslice.engine.stage import Process, Resource
from emslice.geometry.boxes import clip, within
from emslice.stages.agglomeration import CutBlocks
from emslice.stages.dusting import DustBlocks
from emslice.stages.fragments import FragmentBlocks
from emslice.stages.holes import INPUTS, digest_of, lut_digest
from emslice.stages.layout import (
    Frame,
    create_labels,
    index_of,
    key_of,
)
from emslice.volumes import open_volume


@dataclass(frozen=True)
class RelabelChunks:
    """Fragments and LUTs to the segmentation; a task is whole chunks of the output."""

    tables: CutBlocks | DustBlocks
    folder: str
    chunk_shape: tuple[int, int, int]
    fingerprint: str
    peak_bytes: int

    name = "relabel"
    resource: Resource = field(default="CPU", init=False)
    seconds_per_task = 1.0

    @property
    def path(self) -> Path:
        """The segmentation."""
        return Path(self.folder) / "segmentation.zarr"

    @property
    def _frame(self) -> Frame:
        return self.tables.agglomerated.frame

    @property
    def _fragments(self) -> FragmentBlocks:
        return self.tables.agglomerated.stitched.fragments

    @property
    def _tasks(self) -> Frame:
        """Boxes of whole chunks, about as large as a block, whatever shape the blocks have."""
        z, y, x = (
            chunk * max(1, round(block / chunk))
            for chunk, block in zip(self.chunk_shape, self._frame.block_shape, strict=True)
        )
        return Frame(self._frame.roi, self._frame.domain_shape, (z, y, x), None)

    @cached_property
    def n_tasks(self) -> int:
        """Boxes of chunks."""
        return len(self._tasks.grid)

    def waves(self) -> Iterator[Iterable[str]]:
        yield (key_of(index) for index in self._tasks.grid)

    def prepare(self) -> None:
        create_labels(self.path, self._frame, self.chunk_shape, self.fingerprint)

    @contextmanager
    def open(self) -> Iterator[Process]:
        grid = self._frame.grid
        fragments = open_volume(self._fragments.path)
        segments = open_volume(self.path, writable=True)

        def process(key: str) -> dict[str, Any]:
            box = self._tasks.grid.block(index_of(key))
            labels, digests = fragments.read(box), {}
            for index in grid.meeting(box):
                part = within(clip(grid.block(index), box), box)
                lut = self.tables.lut(index)
                digests[key_of(index)] = lut_digest(lut)
                if index in self._fragments.holes.blocks:  # what an attempt left there
                    labels[part] = 0
                labels[part] = lut.apply(labels[part])
            segments.write(box, labels)
            return {INPUTS: self._inputs(key, digests)}

        yield process

    def expected(self, luts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """What the record of each task must say that it read.

        Parameters
        ----------
        luts
            Digest of each block's table of labels.
        """
        for index in self._tasks.grid:
            yield key_of(index), self._inputs(key_of(index), luts)

    def _inputs(self, key: str, luts: Mapping[str, str]) -> str:
        parts = []
        for index in self._frame.grid.meeting(self._tasks.grid.block(index_of(key))):
            parts += [self._fragments.inputs(index), luts.get(key_of(index), "")]
        return digest_of(*parts)
