"""The student on one tile of a run of sections: raw in, affinity codes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from emslice.geometry.boxes import Roi
from emslice.geometry.lattice import Axis, Index, Span, Tile, TileLattice
from emslice.models.folded import FoldedStudent
from emslice.models.gpu import GpuStudent
from emslice.models.profile import ComputeProfile
from emslice.models.student import Student, Window


class PairStudent(Protocol):
    """How a network is run on one device."""

    def run(
        self,
        sections: NDArray[np.uint8],
        blank: NDArray[np.bool_],
        window: Window,
        area: tuple[slice, slice],
    ) -> NDArray[np.uint8]:
        """Affinity codes inside an area, for every section but the first; 0 in blank ones.

        Parameters
        ----------
        sections : uint8, shape (Z + 1, Y, X)
        blank : bool, shape (Z + 1,)
        window : Window
            Where the sections lie.

        Returns
        -------
        codes : uint8, shape (3, Z, area)
        """


class TilePredictor(Protocol):
    """What predicts a tile of a run of sections."""

    lattice: TileLattice
    profile: ComputeProfile

    def affinities(
        self, sections: NDArray[np.uint8], tile: Tile, blank: NDArray[np.bool_] | None = None
    ) -> NDArray[np.uint8]:
        """Codes of a tile's core, for every section but those that are only partners."""


def part_of_tile(
    predictor: TilePredictor,
    shown: NDArray[np.uint8],
    imaged: NDArray[np.bool_],
    index: Index,
    answer: Roi,
) -> NDArray[np.uint8]:
    """`Predictor.codes` of what predicts whole tiles."""
    tile = predictor.lattice.tile(index)
    codes = predictor.affinities(shown, tile, np.array([not seen.any() for seen in imaged]))
    (_, y, x), (_, height, width) = answer.begin, answer.shape
    first_y, first_x = (
        axis.answer(span)[0]
        for axis, span in zip(predictor.lattice.axes, (tile.y, tile.x), strict=True)
    )
    top, left = y - first_y, x - first_x
    return codes[:, :, top : top + height, left : left + width]


class PairPredictor:
    """The student on the tiles of one volume.

    The codes of a voxel depend on its tile's place in the lattice and on the profile, never on the
    box that was asked for or on how sections were grouped: pairs go through the network one by
    one, and a section's stem is computed once for both of its pairs.

    Parameters
    ----------
    network : Student
        In evaluation mode; it is not changed.
    lattice : TileLattice
        Of the sections of the volume.
    profile : ComputeProfile
    student : PairStudent, optional
        How the network is run; by default as the profile says.
    """

    def __init__(
        self,
        network: Student,
        lattice: TileLattice,
        profile: ComputeProfile,
        student: PairStudent | None = None,
    ) -> None:
        self.lattice, self.profile = lattice, profile
        self._student = student or _student_of(network, profile)

    def codes(
        self, shown: NDArray[np.uint8], imaged: NDArray[np.bool_], index: Index, answer: Roi
    ) -> NDArray[np.uint8]:
        return part_of_tile(self, shown, imaged, index, answer)

    @torch.inference_mode()
    def affinities(
        self, sections: NDArray[np.uint8], tile: Tile, blank: NDArray[np.bool_] | None = None
    ) -> NDArray[np.uint8]:
        """Codes of a tile's core, for every section but the first.

        Parameters
        ----------
        sections : uint8, shape (Z + 1, Y, X)
            The tile's read box of the padded sections; section 0 is only a partner. At the first
            section of the volume it is the section itself once more.
        blank : bool, shape (Z + 1,), optional
            Sections that need not be predicted here, as all of it is blank; they get no affinity.

        Returns
        -------
        codes : uint8, shape (3, Z, core Y, core X)
            The part of the core inside the unpadded section.
        """
        crop_y, crop_x = (
            _crop(span, axis)
            for span, axis in zip((tile.y, tile.x), self.lattice.axes, strict=True)
        )
        height, width = (axis.padded for axis in self.lattice.axes)
        window = Window((tile.y.read[0], tile.x.read[0]), (height, width))
        if blank is None:
            blank = np.zeros(len(sections), np.bool_)
        codes = self._student.run(sections, blank, window, (crop_y.slice, crop_x.slice))
        return codes[:, :, crop_y.margin :, crop_x.margin :]


def _student_of(network: Student, profile: ComputeProfile) -> PairStudent:
    dtype = getattr(torch, profile.precision)
    if profile.device == "cpu":
        return FoldedStudent(network, dtype)
    return GpuStudent(network, dtype, profile.device)


@dataclass(frozen=True)
class _Crop:
    """The answer of a tile along one axis, in voxels of its read box."""

    slice: slice
    """What is compared: the answer, and the voxel before it where there is one."""

    margin: int
    """1 if that voxel is there."""


def _crop(span: Span, axis: Axis) -> _Crop:
    low, high = axis.answer(span)
    margin = 1 if low > 0 else 0
    shift = axis.pad - span.read[0]
    return _Crop(slice(low - margin + shift, high + shift), margin)
