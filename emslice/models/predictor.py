"""A network on one tile of a run of sections: raw in, affinity codes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from emslice.geometry.lattice import Axis, Span, Tile, TileLattice
from emslice.models.eager import EagerStudent
from emslice.models.folded import FoldedStudent
from emslice.models.profile import ComputeProfile
from emslice.models.student import Student, Window


class PairStudent(Protocol):
    """How a network is run on one device; a stem means something to its own device only."""

    def stem(self, section: NDArray[np.uint8]) -> Any:
        """Features of one section."""

    def codes(
        self, before: Any, here: Any, window: Window, area: tuple[slice, slice]
    ) -> NDArray[np.uint8]:
        """Affinity codes of the later section of a pair inside an area, shape (3, Y, X)."""


class Predictor:
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
    """

    behind = 0

    def __init__(self, network: Student, lattice: TileLattice, profile: ComputeProfile) -> None:
        self.lattice = lattice
        self.profile = profile
        self._student: PairStudent
        if profile.device == "cpu":
            self._student = FoldedStudent(network, getattr(torch, profile.precision))
        else:
            self._student = EagerStudent(network, profile.device)

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
        shape = (3, len(sections) - 1, crop_y.size, crop_x.size)
        codes = np.zeros(shape, np.uint8)
        before: Any = None
        for z in range(1, len(sections)):
            if blank is not None and blank[z]:
                before = None
                continue
            if before is None:
                before = self._student.stem(sections[z - 1])
            here = self._student.stem(sections[z])
            compared = self._student.codes(before, here, window, (crop_y.slice, crop_x.slice))
            codes[:, z - 1] = compared[:, crop_y.margin :, crop_x.margin :]
            before = here
        return codes


@dataclass(frozen=True)
class _Crop:
    """The answer of a tile along one axis, in voxels of its read box."""

    slice: slice
    """What is compared: the answer, and the voxel before it where there is one."""

    margin: int
    """1 if that voxel is there."""

    @property
    def size(self) -> int:
        return self.slice.stop - self.slice.start - self.margin


def _crop(span: Span, axis: Axis) -> _Crop:
    low, high = axis.answer(span)
    margin = 1 if low > 0 else 0
    shift = axis.pad - span.read[0]
    return _Crop(slice(low - margin + shift, high + shift), margin)
