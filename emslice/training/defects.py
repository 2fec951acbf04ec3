"""What goes wrong with serial sections: lost, shifted, blurred or dirty ones, and noise.

Sections that lie elsewhere take labels and validity with them. Dirt and blur leave labels as they
are: a neuron goes on beneath. A lost section shows nothing, so it is not valid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from emslice.errors import ConfigError
from emslice.training.samples import Sample


@dataclass(frozen=True)
class Defects:
    """Probability of each defect in a crop that is augmented, and how large it gets."""

    missing: float
    """That neighbouring sections are black and not valid; at least one section stays."""

    shift: float
    """That one section lies elsewhere."""

    misalignment: float
    """That all sections from one on lie elsewhere."""

    blur: float
    """That one section is out of focus."""

    dirt: float
    """That there are dark spots on one section."""

    noise: float
    """That there is Gaussian noise on all sections."""

    missing_sections: int
    """Most sections that are missing."""

    displacement: int
    """Voxels, most that a section is shifted along y and along x."""

    blur_sigma: float
    """Voxels, largest standard deviation of the blur."""

    dirt_spots: int
    """Most spots on a section."""

    dirt_radius: float
    """Voxels, largest radius of a spot."""

    noise_std: float
    """Largest standard deviation, where raw is in [0, 1]."""

    def __post_init__(self) -> None:
        for name in ("missing", "shift", "misalignment", "blur", "dirt", "noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"defects.{name}: {getattr(self, name)} is no probability.")
        for name in ("displacement", "blur_sigma", "dirt_radius", "noise_std"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"defects.{name}: {getattr(self, name)} must be 0 or more.")
        for name in ("missing_sections", "dirt_spots"):
            if getattr(self, name) < 1:
                raise ConfigError(f"defects.{name}: {getattr(self, name)} must be 1 or more.")


def draw_displacements(defects: Defects, rng: Generator, depth: int) -> NDArray[np.int64]:
    """Voxels along y and x by which the source of each section lies off, shape (depth, 2)."""
    off = np.zeros((depth, 2), np.int64)
    reach = defects.displacement
    if depth > 1 and rng.random() < defects.misalignment:
        off[rng.integers(1, depth) :] += rng.integers(-reach, reach, 2, endpoint=True)
    if depth > 1 and rng.random() < defects.shift:
        off[rng.integers(depth)] += rng.integers(-reach, reach, 2, endpoint=True)
    return off


def slide(sample: Sample, off: NDArray[np.int64], shape: tuple[int, int]) -> Sample:
    """A section of this shape out of each larger one, as far off as its displacement says.

    The sample must be larger than ``shape`` by the range of ``off``, along each axis.
    """
    places = off - off.min(0)
    moved = (
        np.stack([a[z, y : y + shape[0], x : x + shape[1]] for z, (y, x) in enumerate(places)])
        for a in sample.arrays
    )
    return Sample(*moved)


def soil(sample: Sample, defects: Defects, rng: Generator) -> None:
    """Put dirt on a section and blur one, in place: what happens before grey values are made."""
    depth = len(sample.raw)
    if rng.random() < defects.dirt:
        section = sample.raw[rng.integers(depth)]
        for _ in range(rng.integers(1, defects.dirt_spots, endpoint=True)):
            _spot(section, defects.dirt_radius, rng)
    if rng.random() < defects.blur:
        z, sigma = rng.integers(depth), defects.blur_sigma * rng.uniform(0.25, 1)
        sample.raw[z] = ndimage.gaussian_filter(sample.raw[z], sigma, truncate=3)


def spoil(sample: Sample, defects: Defects, rng: Generator) -> None:
    """Add noise and lose sections, in place: what happens after grey values are made."""
    depth = len(sample.raw)
    if rng.random() < defects.noise:
        std = np.float32(defects.noise_std * rng.random())
        sample.raw += std * rng.standard_normal(sample.raw.shape, np.float32)
        np.clip(sample.raw, 0, 1, out=sample.raw)
    if depth > 1 and rng.random() < defects.missing:
        n = rng.integers(1, min(defects.missing_sections, depth - 1), endpoint=True)
        first = rng.integers(depth - n, endpoint=True)
        sample.raw[first : first + n] = 0
        sample.valid[first : first + n] = False


def _spot(section: NDArray[np.float32], largest: float, rng: Generator) -> None:
    """Darken an irregular spot with a soft edge, in place."""
    radius = largest * rng.uniform(0.25, 1)
    centre = rng.random(2) * section.shape
    ends = tuple(
        slice(max(0, int(c - 2 * radius)), min(n, int(c + 2 * radius) + 2))
        for c, n in zip(centre, section.shape, strict=True)
    )
    y, x = np.ogrid[ends]
    dy, dx = y - centre[0], x - centre[1]
    lobes = np.arange(2, 6)
    swing, phase = rng.uniform(-0.8, 0.8, 4) / lobes, rng.uniform(0, 2 * np.pi, 4)
    # (Y, X, lobes): swings add up to less than 1.1
    waves = swing * np.sin(lobes * np.arctan2(dy, dx)[..., None] + phase)
    edge = radius * (1 + waves.sum(-1))
    opacity, dark = rng.uniform(0.5, 1), 0.3 * rng.random()
    cover = opacity * np.clip((edge - np.hypot(dy, dx)) / (0.3 * radius + 1), 0, 1)
    section[ends] += (cover * (dark - section[ends])).astype(np.float32)
