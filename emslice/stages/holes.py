"""What could not be made reads as masked: the boxes of failed tiles and blocks.

A run with holes gives the segmentation of the volume in which these boxes are masked, exactly.
What a task made depends on the holes that it saw, so its record says which: `Holes.seen_in` of
its read box, or a hash of what it read. A record that says something else than what is there now
no longer stands, and its task is done again. When a hole is gone, the same rule mends the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.geometry.boxes import Roi, clip, show, within
from emslice.geometry.grid import Index
from emslice.ops.lut import Lut

INPUTS = "inputs"
"""The fact of a task that says what it read."""


def digest_of(*parts: str | NDArray[Any]) -> str:
    """16 hex digits for texts and arrays, in order.

    >>> digest_of("a", "b") == digest_of("ab")
    False
    """
    content = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes()
        content.update(len(data).to_bytes(8, "little"))
        content.update(data)
    return content.hexdigest()


def lut_digest(lut: Lut) -> str:
    """16 hex digits for a table."""
    return digest_of(lut.fragments, lut.segments)


@dataclass(frozen=True)
class Holes:
    """Failed tiles and blocks, and the boxes that are masked for them; it pickles."""

    tiles: frozenset[str] = frozenset()
    """Keys of the predict stage."""

    blocks: frozenset[Index] = frozenset()
    """Places in the grid of blocks."""

    boxes: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    """Begin and shape, of both; ascending."""

    @classmethod
    def of(cls, tiles: Iterable[tuple[str, Roi]], blocks: Iterable[tuple[Index, Roi]]) -> Holes:
        """Holes from keys with their boxes."""
        box_of_tile, box_of_block = dict(tiles), dict(blocks)
        boxes = {
            (tuple(int(n) for n in box.begin), tuple(int(n) for n in box.shape))
            for box in (*box_of_tile.values(), *box_of_block.values())
        }
        return cls(frozenset(box_of_tile), frozenset(box_of_block), tuple(sorted(boxes)))

    def __bool__(self) -> bool:
        return bool(self.boxes)

    def mask(self, codes: NDArray[np.uint8], box: Roi) -> None:
        """Set the codes (3, Z, Y, X) of a box to 0 in every hole."""
        for part in self._meeting(box):
            codes[(slice(None), *within(part, box))] = 0

    def seen_in(self, box: Roi) -> str:
        """The holes in a box as a hash; empty without any."""
        parts = [show(part) for part in self._meeting(box)]
        return digest_of(*parts) if parts else ""

    def _meeting(self, box: Roi) -> list[Roi]:
        parts = [clip(Roi(*hole), box) for hole in self.boxes]
        return [part for part in parts if not part.empty]
