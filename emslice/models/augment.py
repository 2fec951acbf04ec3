"""Test-time augmentation: a tile predicted in several poses, averaged as affinities.

A pose flips or transposes the *padded section*, or reverses the order of sections. The network
upsamples by where a tile lies in its section, so a tile of a flipped section is the tile at the
mirrored place: tiles start on multiples of 16 and padded sections end on one, hence so do mirrored
tiles, and it does not matter that padding may be one voxel longer behind than before.

Affinities move with their voxels, and to another voxel or channel where the pair that they are of
turns around: an affinity belongs to the later voxel of its pair. The one of voxels y - 1 and y,
stored at y, is in the flipped section that of P - 1 - y and P - y, stored at P - y (P voxels, so y
lies at P - 1 - y); that of sections z - 1 and z, stored at z, is in reversed order stored at z - 1;
a transposition swaps channels y and x. Within section z the network's answer for the later section
of a pair counts, so in reversed order that of the pair (z + 1, z).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from emslice.geometry.boxes import Roi
from emslice.geometry.lattice import Index, Span, Tile, TileLattice
from emslice.models.pairs import TilePredictor, part_of_tile
from emslice.models.profile import ComputeProfile
from emslice.ops.pair_codes import repeat_third_line


@dataclass(frozen=True)
class Pose:
    """How a stack of sections is turned before it is predicted: flipped, then transposed."""

    flip_y: bool = False
    flip_x: bool = False
    transpose: bool = False
    reverse: bool = False
    """The order of sections."""


POSES = {
    "none": (Pose(),),
    "flips": tuple(Pose(y, x) for y, x in product((False, True), repeat=2)),
    "all": tuple(Pose(*turns) for turns in product((False, True), repeat=4)),
}
"""By the name of the augmentation."""


class AugmentedPredictor:
    """The mean of a network's affinities over poses.

    Codes of all poses are added as integers, in which order does not matter, and their mean is
    rounded: a code is ``floor(256 a)``, half a step too low on average.

    Parameters
    ----------
    make : callable
        Gives the predictor of a network on a lattice.
    lattice : TileLattice
        Of the sections of the volume; shows the section behind, too.
    profile : ComputeProfile
    poses : tuple of Pose
    """

    def __init__(
        self,
        make: Callable[[TileLattice], TilePredictor],
        lattice: TileLattice,
        profile: ComputeProfile,
        poses: tuple[Pose, ...],
    ) -> None:
        self.lattice, self.profile, self._poses = lattice, profile, poses
        height, width = (axis.padded for axis in lattice.axes)
        # To the predictor padding is part of the section, or it would cut it off on the wrong side.
        self._upright = make(TileLattice((height, width), lattice.core))
        self._transposed = make(TileLattice((width, height), lattice.core))

    def codes(
        self, shown: NDArray[np.uint8], imaged: NDArray[np.bool_], index: Index, answer: Roi
    ) -> NDArray[np.uint8]:
        return part_of_tile(self, shown, imaged, index, answer)

    def affinities(
        self, sections: NDArray[np.uint8], tile: Tile, blank: NDArray[np.bool_] | None = None
    ) -> NDArray[np.uint8]:
        """Codes of a tile's core, for every section but the first and the last.

        Parameters
        ----------
        sections : uint8, shape (Z + 2, Y, X)
            The tile's read box of the padded sections. The first is the one before, and the last
            the one behind; at the border of the volume the outermost section once more.
        blank : bool, shape (Z + 2,), optional
            Sections that are blank in all of the read box; they get no affinity.

        Returns
        -------
        codes : uint8, shape (3, Z, core Y, core X)
            The part of the core inside the unpadded section.
        """
        if blank is None:
            blank = np.zeros(len(sections), np.bool_)
        (y0, y1), (x0, x1) = tile.y.core, tile.x.core
        total = np.zeros((3, len(sections) - 2, y1 - y0, x1 - x0), np.uint16)
        for pose in self._poses:
            total += self._in_pose(pose, sections, tile, blank)
        n = len(self._poses)
        codes = ((total + n // 2) // n).astype(np.uint8)
        return self._inside(codes, tile)

    def _in_pose(
        self, pose: Pose, sections: NDArray[np.uint8], tile: Tile, blank: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """Codes of the core in one pose, where they belong."""
        lengths = [axis.padded for axis in self.lattice.axes]
        flips = (pose.flip_y, pose.flip_x)
        spans = [
            _mirrored(span, length) if flip else span
            for span, length, flip in zip((tile.y, tile.x), lengths, flips, strict=True)
        ]
        turned = sections[:, :: -1 if pose.flip_y else 1, :: -1 if pose.flip_x else 1]
        predictor, place = self._upright, Tile(spans[0], spans[1])
        if pose.transpose:
            predictor, place = self._transposed, Tile(spans[1], spans[0])
            turned = turned.swapaxes(1, 2)
        codes = _in_order(predictor, np.ascontiguousarray(turned), place, blank, pose.reverse)
        if pose.transpose:
            codes = codes[[0, 2, 1]].swapaxes(2, 3)
        for axis, flip in enumerate(flips):
            if flip:
                codes = _flip_back(codes, axis, (tile.y, tile.x)[axis])
        return codes

    def _inside(self, codes: NDArray[np.uint8], tile: Tile) -> NDArray[np.uint8]:
        """Codes without padding; the first row and column repeat the third, as without poses."""
        for axis, span in enumerate((tile.y, tile.x)):
            lines = self.lattice.axes[axis]
            low, high = lines.answer(span)
            shift = lines.pad - span.core[0]
            codes = codes[(slice(None),) * (2 + axis) + (slice(low + shift, high + shift),)]
            if low == 0:
                repeat_third_line(codes[axis + 1], axis - 2)
        return codes


def _mirrored(span: Span, length: int) -> Span:
    """The place of a span in a flipped section, its core one voxel longer behind if it can be.

    An affinity of the first voxel of the span is stored there.
    """
    (low, high), (first, end) = span.core, span.read
    return Span((length - high, length - low + (low > 0)), (length - end, length - first))


def _in_order(
    predictor: TilePredictor,
    sections: NDArray[np.uint8],
    tile: Tile,
    blank: NDArray[np.bool_],
    reverse: bool,
) -> NDArray[np.uint8]:
    """Codes of all sections but the outermost, from pairs in one order or the other."""
    if not reverse:
        return predictor.affinities(sections[:-1], tile, blank[:-1])
    # A pair with one blank section is predicted in both orders, or the mean would be half of one.
    skipped = blank & np.r_[blank[1:], True]
    codes = predictor.affinities(sections[::-1], tile, skipped[::-1])[:, ::-1]
    # codes[:, k] are of section k, which came later than section k + 1
    return np.concatenate([codes[:1, :-1], codes[1:, 1:]])


def _flip_back(codes: NDArray[np.uint8], axis: int, span: Span) -> NDArray[np.uint8]:
    """Codes of a mirrored span at the voxels of the span; along y (0) or x (1)."""
    codes = np.flip(codes, axis + 2)  # begins one voxel before the span, unless nothing is there
    ahead = 1 if span.core[0] > 0 else 0
    kept = codes[(slice(None),) * (2 + axis) + (slice(ahead, None),)].copy()
    own = np.moveaxis(codes[axis + 1], axis + 1, 0)
    target = np.moveaxis(kept[axis + 1], axis + 1, 0)
    if ahead:
        target[:] = own[:-1]
    else:
        target[1:], target[0] = own[:-1], 0
    return kept
