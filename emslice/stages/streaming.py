"""Predict and fragments at once, so that affinities need a place only while they wait."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from emslice.engine.joint import Joint, Task
from emslice.engine.stage import Stage
from emslice.geometry.boxes import n_voxels
from emslice.geometry.grid import Index
from emslice.stages.fragments import FragmentBlocks
from emslice.stages.layout import key_of
from emslice.stages.tiles import PredictTiles


@dataclass(frozen=True)
class Handover(Joint):
    """Tiles in the order in which blocks need them, each group of blocks right behind its tiles.

    A wave predicts the tiles of one group and makes fragments of the group before. So what waits
    are two groups of tiles, and those of which a part is needed further on: with blocks that do
    not end with a run of sections, one run of the whole section.
    """

    predict: PredictTiles
    fragments: FragmentBlocks
    group_bytes: int
    """Affinities of a group of tiles, which is no smaller than what one block needs."""

    peak_bytes: int

    @property
    def parts(self) -> tuple[Stage, ...]:
        return self.predict, self.fragments

    @property
    def total_bytes(self) -> int:
        """Affinities of the whole box."""
        return 3 * n_voxels(self.fragments.frame.box)

    def tasks(self) -> Iterator[list[Task]]:
        before: list[Task] = []
        for tiles, blocks in self._groups():
            yield before + [(self.predict.name, tile) for tile in tiles]
            before = [(self.fragments.name, key_of(index)) for index in blocks]
        yield before

    def _groups(self) -> Iterator[tuple[list[str], list[Index]]]:
        """Blocks in order, with the tiles that they are the first to read."""
        tiles: list[str] = []
        blocks: list[Index] = []
        size = 0
        for index in self.fragments.frame.grid:
            first = [t for t in self._read_by(index) if self._first_reader(t) == index]
            if size >= self.group_bytes and first:
                yield tiles, blocks
                tiles, blocks, size = [], [], 0
            tiles += first
            blocks.append(index)
            size += sum(3 * n_voxels(self.predict.tiles.box(tile)) for tile in first)
        yield tiles, blocks

    def _read_by(self, index: Index) -> Iterator[str]:
        return self.predict.tiles.meeting(self.fragments.read_box(index))

    def _first_reader(self, tile: str) -> Index:
        return next(self.fragments.readers(self.predict.tiles.box(tile)))
