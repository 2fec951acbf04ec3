"""Affinities that nobody reads any more are deleted, tile by tile."""

from __future__ import annotations

import shutil

from emslice.geometry.boxes import Coordinate, Roi
from emslice.stages.fragments import FragmentBlocks
from emslice.stages.layout import index_of, key_of
from emslice.stages.tiles import TileSet


class Dropping:
    """Deletes a tile once every block that reads it has its record.

    Parameters
    ----------
    done : set of str
        Blocks of the fragments stage that have a record already; the set is taken over.
    """

    def __init__(self, tiles: TileSet, fragments: FragmentBlocks, done: set[str]) -> None:
        self._tiles, self._fragments, self._done = tiles, fragments, done

    def catch_up(self) -> list[str]:
        """Delete what an earlier coordinator had no time to delete.

        Returns
        -------
        missing : list of str
            Tiles that are gone and will be read again, since other parameters are asked for now.
        """
        missing = []
        for key in self._tiles.keys():  # noqa: SIM118
            if self._is_read(key):
                self._delete(key)
            elif not self._tiles.path(key).exists():
                missing.append(key)
        return missing

    def block_done(self, fingerprint: str, key: str) -> None:
        """Note a block's record, and delete the tiles of which it was the last reader."""
        if fingerprint != self._fragments.fingerprint:
            return
        self._done.add(key)
        block = self._fragments.frame.grid.block(index_of(key))
        for tile in self._tiles.meeting(self._read_box(block)):
            if self._is_read(tile):
                self._delete(tile)

    def _is_read(self, tile: str) -> bool:
        readers = self._fragments.frame.grid.meeting(self._read_box(self._tiles.box(tile)))
        return all(key_of(index) in self._done for index in readers)

    def _delete(self, tile: str) -> None:
        shutil.rmtree(self._tiles.path(tile), ignore_errors=True)

    def _read_box(self, box: Roi) -> Roi:
        """The box grown by the halo of fragments: what reads it, or what it reads."""
        halo = Coordinate(self._fragments.halo)
        return box.grow(halo, halo).intersect(self._fragments.frame.box)
