"""Affinities that nobody reads any more are deleted, tile by tile."""

from __future__ import annotations

import shutil

from emslice.geometry.boxes import Coordinate, Roi, clip
from emslice.stages.fragments import FragmentBlocks
from emslice.stages.layout import index_of, key_of
from emslice.stages.tiles import KeepAffinities, TileSet


class Dropping:
    """Deletes a tile once every task that reads it has its record.

    Parameters
    ----------
    fragments, keep
        The stages that read tiles.
    done : dict
        Of each of them by fingerprint, the tasks that have a record already; taken over.
    """

    def __init__(
        self,
        tiles: TileSet,
        fragments: FragmentBlocks,
        keep: KeepAffinities | None,
        done: dict[str, set[str]],
    ) -> None:
        self._tiles, self._fragments, self._keep, self._done = tiles, fragments, keep, done

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

    def block_done(self, fingerprint: str, key: str) -> None:
        """Note a block's record, and delete the tiles of which it was the last reader."""
        if fingerprint not in self._done:
            return
        self._done[fingerprint].add(key)
        if fingerprint != self._fragments.fingerprint:  # blocks come last
            return
        block = self._fragments.frame.grid.block(index_of(key))
        for tile in self._tiles.meeting(self._read_box(block)):
            if self._is_read(tile):
                self._delete(tile)

    def _is_read(self, tile: str) -> bool:
        box = self._tiles.box(tile)
        if self._keep is not None:
            done = self._done[self._keep.fingerprint]
            slabs = self._keep.slabs().items()
            if any(key not in done for key, slab in slabs if not clip(slab, box).empty):
                return False
        readers = self._fragments.frame.grid.meeting(self._read_box(box))
        return all(key_of(index) in self._done[self._fragments.fingerprint] for index in readers)

    def _delete(self, tile: str) -> None:
        shutil.rmtree(self._tiles.path(tile), ignore_errors=True)

    def _read_box(self, box: Roi) -> Roi:
        """The box grown by the halo of fragments: what reads it, or what it reads."""
        halo = Coordinate(0, self._fragments.radius, self._fragments.radius)
        return box.grow(halo, halo).intersect(self._fragments.frame.box)
