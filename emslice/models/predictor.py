"""A network on one tile of a run of sections: raw in, affinity codes out."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emslice.geometry.lattice import Axis, Span, Tile, TileLattice
from emslice.models.profile import ComputeProfile
from emslice.models.student import Student, Window
from emslice.ops.affinity import pair_affinity, quantise


class Predictor:
    """The student on the tiles of one volume.

    The codes of a voxel depend on its tile's place in the lattice and on the profile, never on the
    box that was asked for or on how sections were grouped: pairs go through the network one by
    one, and a section's stem is computed once for both of its pairs.

    Parameters
    ----------
    network : Student
        In evaluation mode; a copy is moved to the profile's device.
    lattice : TileLattice
        Of the sections of the volume.
    profile : ComputeProfile
    """

    def __init__(self, network: Student, lattice: TileLattice, profile: ComputeProfile) -> None:
        self.lattice = lattice
        self.profile = profile
        self._network = copy.deepcopy(network).to(profile.device)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

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
        before = None
        for z in range(1, len(sections)):
            if blank is not None and blank[z]:
                before = None
                continue
            before = before or self._stem(sections[z - 1])
            here = self._stem(sections[z])
            pair = self._network.decode(before, here, window)
            first, second = (e[0, :, crop_y.slice, crop_x.slice] for e in pair)
            affinity = pair_affinity(first, second)[:, crop_y.margin :, crop_x.margin :]
            codes[:, z - 1] = quantise(affinity).cpu().numpy()
            before = here
        return codes

    def _stem(self, section: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        batch = torch.from_numpy(np.ascontiguousarray(section)[None, None])
        batch = batch.to(self.profile.device).float() / 255
        return self._network.stem(batch.contiguous(memory_format=torch.channels_last))


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
