"""One interface to every network: where it is run, what it sees, what it gives, what it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi
from emslice.geometry.lattice import HALO, Z_RUN, Index, Lattice, TileLattice
from emslice.geometry.neighborhood import NEAREST, Offset
from emslice.geometry.windows import WindowLattice
from emslice.models.augment import POSES, AugmentedPredictor
from emslice.models.networks import Network, VolumeNetwork, count_parameters
from emslice.models.pairs import PairPredictor
from emslice.models.profile import ComputeProfile
from emslice.models.student import Student
from emslice.models.windows import WindowPredictor

Triple = tuple[int, int, int]

BLEND_BYTES = 28
"""Of what is blended, a voxel of a cell's sections that a window reaches: sums and a product."""

READ_BYTES = 10
"""Of raw on its way to a network, a voxel: as read, in 8 bits, where it was imaged, and copies."""


class Predictor(Protocol):
    """A network on the lattice of one volume.

    The codes of a voxel depend on the lattice and the profile, never on the box that is asked for.
    """

    profile: ComputeProfile

    @property
    def lattice(self) -> Lattice: ...

    def codes(
        self,
        shown: NDArray[np.uint8],
        imaged: NDArray[np.bool_],
        index: Index,
        answer: Roi,
    ) -> NDArray[np.uint8]:
        """Affinity codes of a part of what a cell owns, shape (3, Z, Y, X).

        Parameters
        ----------
        shown : uint8, shape as ``lattice.sources(index, answer)`` has it
        imaged : bool, the same shape
            False where raw is 0.
        """


@dataclass(frozen=True)
class PredictorFacts:
    """What a plan must know of a network on a volume; nothing has to be run for it."""

    lattice: Lattice
    halo: Triple
    """Voxels z, y, x beyond a cell that are read, at most and on each side."""

    neighborhood: tuple[Offset, ...]
    """Offset of each channel that is given."""

    bytes_per_voxel: int
    """Upper bound of what a call of the network takes, a voxel that it sees."""

    peak_bytes: int
    """Upper bound of what a task takes, its codes included."""


STUDENT_BYTES = 1600
"""Of a call of the student, a pixel of a tile's read box (measured: docs/results/predict.md)."""

AUGMENT_BYTES = 16
"""More of it where poses are added up, a voxel of a tile's read box: sums, codes, turned raw."""

AUGMENT_BYTES_3D = 64
"""The same for a window, a voxel: five copies of three affinities, and turned raw."""

WEIGHT_BYTES = 12
"""Of a 3D network, a parameter: as loaded, as folded, and one more copy on the way."""


def facts_of(
    network: Network,
    shape: Triple,
    tile: int = 1024,
    crop: Triple | None = None,
    stride: Triple | None = None,
    augment: str = "none",
) -> PredictorFacts:
    """Facts of a network on a domain.

    Parameters
    ----------
    shape : (int, int, int)
        Of the domain, voxels.
    tile : int
        Longest side of a tile's core, for students.
    crop, stride : (int, int, int), optional
        What a 3D network sees at once, and how far apart; by default as published.
    augment : str
        One of `augment.POSES`.

    Raises
    ------
    ConfigError
        Sizes that the network cannot take.
    """
    if isinstance(network, Student):
        if crop is not None or stride is not None:
            raise ConfigError(
                "predict.crop, predict.stride: they are for 3D networks; this checkpoint holds a "
                "student of two sections. Drop them, or use predict.tile."
            )
        return _facts_of_tiles(
            TileLattice(shape[1:], tile, None if augment == "none" else shape[0] - 1)
        )
    crop = crop or network.crop
    network.check_crop(crop)
    lattice = WindowLattice(shape, crop, stride or network.stride, network.margin)
    return _facts_of_windows(network, lattice, augment != "none")


def _facts_of_tiles(lattice: TileLattice) -> PredictorFacts:
    height, width = lattice.largest_read
    poses = 0 if lattice.last is None else AUGMENT_BYTES
    return PredictorFacts(
        lattice,
        halo=(1, HALO, HALO),
        neighborhood=NEAREST,
        bytes_per_voxel=STUDENT_BYTES,
        peak_bytes=(STUDENT_BYTES + (READ_BYTES + poses) * Z_RUN) * height * width,
    )


def _facts_of_windows(
    network: VolumeNetwork, lattice: WindowLattice, augmented: bool
) -> PredictorFacts:
    z, y, x = (
        max(s * ((o - 1) // s), o - s) + m
        for s, o, m in zip(lattice.stride, lattice.output, lattice.margin, strict=True)
    )
    cell = lattice.largest_cell
    seen = math.prod(side + 2 * h for side, h in zip(cell, (z, y, x), strict=True))
    return PredictorFacts(
        lattice,
        halo=(z, y, x),
        neighborhood=NEAREST,
        bytes_per_voxel=network.bytes_per_voxel,
        peak_bytes=WEIGHT_BYTES * count_parameters(network)
        + network.bytes_per_voxel * math.prod(lattice.crop)
        + (AUGMENT_BYTES_3D * math.prod(lattice.crop) if augmented else 0)
        + BLEND_BYTES * lattice.output[0] * cell[1] * cell[2]
        + READ_BYTES * seen
        + 6 * math.prod(cell),
    )


def make_predictor(
    network: Network, lattice: Lattice, profile: ComputeProfile, augment: str = "none"
) -> Predictor:
    """Predictor of a network on a lattice made for it by `facts_of`, in all poses of `augment`."""
    if isinstance(network, Student):
        assert isinstance(lattice, TileLattice)
        if augment == "none":
            return PairPredictor(network, lattice, profile)
        return AugmentedPredictor(
            lambda turned: PairPredictor(network, turned, profile), lattice, profile, POSES[augment]
        )
    assert isinstance(lattice, WindowLattice)
    return WindowPredictor(network, lattice, profile, POSES[augment])
