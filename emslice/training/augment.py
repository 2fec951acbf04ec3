"""What is done to a crop: flips, one warp, grey values, defects.

All that is random is drawn from the generator of the sample; nothing here knows another. Rotation,
rescaling and elastic deformation are one map and one interpolation. Methods and figures follow
the published training (reference, 6.8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import fft

from emslice.errors import ConfigError
from emslice.geometry.boxes import Coordinate, Roi
from emslice.training.defects import Defects, draw_displacements, slide, soil, spoil
from emslice.training.samples import Sample, Warp, read_straight, read_warped
from emslice.training.sources import TrainingVolume

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Augmentation:
    """How likely each change is, and how large it gets."""

    probability: float
    """That a sample is augmented at all; everything below is given that."""

    flip: float
    """That z, y, x are reversed and y, x transposed, each with probability 1/2."""

    rotate: float
    rescale: float
    elastic: float
    grey: float

    degrees: float
    """Largest angle, to either side; 180 and more are all angles."""

    scale: float
    """Things get at most this share larger or smaller, along y and x independently."""

    elastic_alpha: float
    """Voxels: displacement is noise in [-1, 1], smoothed, times this."""

    elastic_sigma: float
    """Voxels, standard deviation of the Gaussian that smooths it."""

    contrast: float
    """Range of the factor around 1, where raw is in [0, 1]."""

    brightness: float
    """Range of what is added, around 0."""

    gamma: float
    """The exponent lies between 2 to the power of minus this and of this."""

    defects: Defects

    def __post_init__(self) -> None:
        for name in ("probability", "flip", "rotate", "rescale", "elastic", "grey"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"augment.{name}: {getattr(self, name)} is no probability.")
        for name in ("degrees", "elastic_alpha", "elastic_sigma", "brightness", "gamma"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"augment.{name}: {getattr(self, name)} must be 0 or more.")
        for name, limit in (("scale", 1), ("contrast", 2)):
            if not 0 <= getattr(self, name) < limit:
                raise ConfigError(f"augment.{name}: {getattr(self, name)} is not in [0, {limit}).")

    @property
    def warps(self) -> bool:
        """Whether any sample can be interpolated."""
        return self.probability > 0 and max(self.rotate, self.rescale, self.elastic) > 0


@dataclass(frozen=True)
class Flips:
    """Which axes of the crop are reversed, and whether y and x are then exchanged."""

    axes: tuple[int, ...]
    transposed: bool

    def before(self, crop: Shape) -> Shape:
        """Shape of what becomes a crop of this shape."""
        z, y, x = crop
        return (z, x, y) if self.transposed else crop

    def __call__(self, sample: Sample) -> Sample:
        """The flipped sample: views."""
        turn = (0, 2, 1) if self.transposed else (0, 1, 2)
        return Sample(*(np.flip(array, self.axes).transpose(turn) for array in sample.arrays))


def draw_flips(augmentation: Augmentation, rng: Generator, crop: Shape, room: Shape) -> Flips:
    """Flips of a crop; not transposed if the volume has no room for that."""
    on = rng.random() < augmentation.flip
    coins = rng.random(4) < 0.5
    axes = tuple(axis for axis in range(3) if on and coins[axis])
    fits = crop[1] <= room[2] and crop[2] <= room[1]
    return Flips(axes, bool(on and coins[3] and fits))


def draw_warp(augmentation: Augmentation, rng: Generator, shape: tuple[int, int]) -> Warp | None:
    """Rotation, rescaling and elastic deformation of sections of this shape; None if none."""
    a = augmentation
    rotates, rescales, bends = rng.random(3) < (a.rotate, a.rescale, a.elastic)
    if not (rotates or rescales or bends):
        return None
    angle, *stretch = rng.uniform(-1, 1, 3)
    radians = math.radians(a.degrees * float(angle)) if rotates else 0.0
    y, x = (1 + a.scale * float(s) if rescales else 1.0 for s in stretch)
    field = elastic_field(rng, shape, a.elastic_alpha, a.elastic_sigma) if bends else None
    return Warp(radians, (y, x), field)


def elastic_field(
    rng: Generator, shape: tuple[int, int], alpha: float, sigma: float
) -> NDArray[np.float32]:
    """Smooth displacement, float32, shape (2, Y, X), voxels.

    Smoothed in Fourier space: the cost does not grow with sigma, and that opposite borders
    continue each other harms nothing.
    """
    noise = fft.rfft2(2 * rng.random((2, *shape), np.float32) - 1)
    y, x = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    noise *= np.exp(-2 * (np.pi * sigma) ** 2 * (y**2 + x**2)).astype(np.float32)
    smooth: NDArray[np.float32] = np.float32(alpha) * fft.irfft2(noise, shape)
    return smooth


def change_grey(sample: Sample, augmentation: Augmentation, rng: Generator) -> None:
    """Change contrast, brightness and gamma in place, of all sections alike or of each."""
    n = 1 if rng.random() < 0.5 else len(sample.raw)
    contrast, brightness, power = rng.uniform(-1, 1, (3, n, 1, 1)).astype(np.float32)
    sample.raw *= 1 + augmentation.contrast / 2 * contrast
    sample.raw += augmentation.brightness / 2 * brightness
    np.clip(sample.raw, 0, 1, out=sample.raw)
    np.power(sample.raw, 2 ** (augmentation.gamma * power), out=sample.raw)


def take(
    volume: TrainingVolume, box: Roi, flips: Flips, augmentation: Augmentation, rng: Generator
) -> Sample:
    """An augmented crop from around a box, which has the shape from before the flips."""
    depth, *section = (int(n) for n in box.shape)
    shape = section[0], section[1]
    off = draw_displacements(augmentation.defects, rng, depth)
    # Larger than the crop, so that shifted sections bring what is really there.
    more = [int(n) for n in np.ptp(off, axis=0)]
    half = Coordinate(0, more[0] // 2, more[1] // 2)
    window = Roi(box.begin - half, box.shape + Coordinate(0, *more))
    warp = draw_warp(augmentation, rng, (shape[0] + more[0], shape[1] + more[1]))
    sample = read_warped(volume, window, warp) if warp else read_straight(volume, window)
    sample = flips(slide(sample, off, shape) if any(more) else sample)
    soil(sample, augmentation.defects, rng)
    if rng.random() < augmentation.grey:
        change_grey(sample, augmentation, rng)
    spoil(sample, augmentation.defects, rng)
    return sample
