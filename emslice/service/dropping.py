"""Affinities that nobody reads any more are deleted, tile by tile."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

import numpy as np

from emslice.geometry.boxes import clip
from emslice.stages.fragments import FragmentBlocks
from emslice.stages.layout import index_of
from emslice.stages.tiles import KeepAffinities, TileSet


class Dropping:
    """Deletes a tile once every task that reads it has its record.

    Parameters
    ----------
    fragments, keep
        The stages that read tiles; ``keep``, if there is one, comes first.
    blocks, slabs
        Their tasks that have a record already.

    Notes
    -----
    One byte a block: the coordinator does not grow with what is done.
    """

    def __init__(
        self,
        tiles: TileSet,
        fragments: FragmentBlocks,
        blocks: Iterable[str],
        keep: KeepAffinities | None = None,
        slabs: Iterable[str] = (),
    ) -> None:
        self._tiles, self._fragments, self._keep = tiles, fragments, keep
        self._done = np.zeros(fragments.frame.grid.shape, np.bool_)
        for key in blocks:
            self._done[index_of(key)] = True
        self._slabs = set(slabs)

    def catch_up(self) -> list[str]:
        """Delete what an earlier coordinator had no time to delete.

        Returns
        -------
        missing : list of str
            Tiles that are gone and will be read again, since other parameters are asked for now,
            or holes came or went.
        """
        missing = []
        for key in self._tiles.keys():  # noqa: SIM118
            if self._is_read(key):
                self._delete(key)
            elif key not in self._fragments.holes.tiles and not self._tiles.path(key).exists():
                missing.append(key)
        return missing

    def task_done(self, fingerprint: str, key: str) -> None:
        """Note a record, and delete the tiles of which the task was the last reader."""
        if self._keep is not None and fingerprint == self._keep.fingerprint:
            self._slabs.add(key)
        elif fingerprint == self._fragments.fingerprint:
            self._done[index_of(key)] = True
            for tile in self._tiles.meeting(self._fragments.read_box(index_of(key))):
                if self._is_read(tile):
                    self._delete(tile)

    def _is_read(self, tile: str) -> bool:
        box = self._tiles.box(tile)
        slabs = {} if self._keep is None else self._keep.slabs()
        if any(key not in self._slabs and not clip(s, box).empty for key, s in slabs.items()):
            return False
        return all(self._done[index] for index in self._fragments.readers(box))

    def _delete(self, tile: str) -> None:
        shutil.rmtree(self._tiles.path(tile), ignore_errors=True)
