"""Affinities as a network might give them, made from labels: seeded, a section at a time.

A contact within one label is sure to hold together, any other to be apart; both fade into each
other near boundaries. Noise is added to the logit: of every voxel, of the order of a membrane, and
of patches, in which a section is blurred or a membrane is lost. Every section has a seed of its
own, so the sections of a box may be made in any order.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from emslice.geometry.boxes import Coordinate, Roi
from emslice.volumes import Volume, create_volume

Floats = NDArray[np.float32]

SLOPE = (0.4, 1.8, 1.8)
"""Rise of the logit, a voxel of distance from the boundary; of the channels z, y, x."""

FALL = (3.0, 5.0, 5.0)
"""The same across it, where it is steeper."""

SURE = (1.5, 5.0, 5.0)
"""Largest logit before the noise."""

APART = 8.0
"""Smallest logit before the noise is minus this."""

NOISE = ((0.6, 1.0), (1.2, 3.0), (2.0, 16.0))
"""Standard deviation of the logit, and voxels over which it varies."""


def render_section(
    before: NDArray[np.uint32] | None, labels: NDArray[np.uint32], z: int, seed: int = 0
) -> NDArray[np.uint8]:
    """Codes (3, Y, X) of one section of labels and the one before it; label 0 is boundary."""
    rng = np.random.default_rng([seed, z])
    codes = np.zeros((3, *labels.shape), np.uint8)
    patches = sum(_noise(rng, labels.shape, *noise) for noise in NOISE[1:])
    in_plane = _differs(labels, 1) | _differs(labels, 2)
    for k in range(3):
        if k == 0 and before is None:
            continue
        apart = (labels != before) | (labels == 0) if k == 0 else in_plane
        depth = _depth(apart)
        logit = np.clip(np.where(depth > 0, SLOPE[k], FALL[k]) * depth, -APART, SURE[k])
        noise = patches + _noise(rng, labels.shape, *NOISE[0])
        codes[k] = np.minimum(np.floor(256 * expit(logit + noise)), 255)
    codes[1, 0] = codes[2, :, 0] = 0
    return codes


def _differs(labels: NDArray[np.uint32], axis: int) -> NDArray[np.bool_]:
    """Voxels that have another label, or none, on either side."""
    later = (labels != np.roll(labels, 1, axis - 1)) | (labels == 0)
    np.moveaxis(later, axis - 1, 0)[0] = False  # rolled in from the other side
    return later | np.roll(later, -1, axis - 1)


def _depth(apart: NDArray[np.bool_]) -> Floats:
    """Distance from the boundary in voxels; negative inside of it."""
    out = ndimage.distance_transform_edt(~apart) if apart.any() else np.full(apart.shape, 99.0)
    return np.asarray(out - ndimage.distance_transform_edt(apart), np.float32)


def _noise(
    rng: np.random.Generator, shape: tuple[int, ...], deviation: float, step: float
) -> Floats:
    """Gaussian noise that varies over ``step`` voxels."""
    knots = rng.standard_normal([int(n / step) + 4 for n in shape], np.float32)
    at = np.meshgrid(*(np.arange(n, dtype=np.float32) / step + 1 for n in shape), indexing="ij")
    field = (
        ndimage.map_coordinates(knots, at, order=1) if step > 1 else knots[: shape[0], : shape[1]]
    )
    field = field[: shape[0], : shape[1]]
    return (field * np.float32(deviation / field.std())).astype(np.float32)


def render_volume(source: Path, roi: Roi, target: Path, depth: int = 16) -> Volume:
    """Affinities of a box of labels in HDF5, written ``depth`` sections at a time."""
    shape = tuple(int(n) for n in roi.shape)
    out = create_volume(target, shape=shape, channels=3, dtype=np.uint8)
    with h5py.File(source) as file, ThreadPoolExecutor(2) as pool:
        before: list[NDArray[np.uint32] | None] = [None]
        for z in range(0, shape[0], depth):
            box = Roi(roi.begin + Coordinate(z, 0, 0), (min(depth, shape[0] - z), *shape[1:]))
            labels = list(file["labels"][box.to_slices()])
            numbers = range(int(box.begin[0]), int(box.end[0]))
            codes = np.stack(
                list(pool.map(render_section, before + labels[:-1], labels, numbers)), axis=1
            )
            out.write(Roi(Coordinate(z, 0, 0), codes.shape[1:]), codes)
            before = [labels[-1]]
    return out
