"""A crop on its way to the network, and how it is read from a volume: as it lies, or warped.

Raw, labels and validity are always moved by the same map, labels and validity to the nearest
voxel. What lies beyond the volume is mirrored, as predict pads sections, and not valid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emslice.geometry.boxes import Roi, clip
from emslice.training.compact import compact
from emslice.training.sources import TrainingVolume

EXACT_IN_FLOAT32 = 2**24
"""Integers below this are float32 numbers."""


@dataclass
class Sample:
    """Three arrays of one shape (Z, Y, X) that describe the same voxels."""

    raw: NDArray[np.float32]
    """In [0, 1]."""

    labels: NDArray[np.int32]
    """0 is background."""

    valid: NDArray[np.bool_]
    """False where there is nothing to learn from: beyond the volume or its mask, or unseen."""

    @property
    def arrays(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Raw, labels, valid."""
        return self.raw, self.labels, self.valid

    def tensors(self, labelled: bool) -> dict[str, torch.Tensor]:
        """What a data loader stacks."""
        # Copies: flipped arrays run backwards, which torch does not take.
        return {
            "raw": torch.from_numpy(self.raw.copy()),
            "labels": torch.from_numpy(self.labels.astype(np.int64, order="C")),
            "valid": torch.from_numpy(self.valid.copy()),
            "labelled": torch.tensor(labelled),
        }


@dataclass(frozen=True)
class Warp:
    """Where the voxels of a window come from, the same for all sections.

    The source of a voxel: its place from the centre of the window, divided by the factors, then
    rotated, then displaced.
    """

    radians: float
    """Rotation."""

    factors: tuple[float, float]
    """How much larger things get along y and x."""

    field: NDArray[np.float32] | None
    """Voxels along y and x by which the source of each voxel is displaced besides, (2, Y, X)."""


def read_straight(volume: TrainingVolume, window: Roi) -> Sample:
    """The voxels of a window, which may leave the volume in the section."""
    inside = clip(window, volume.roi)
    raw, labels, usable = volume.read(inside)
    if inside != window:
        before = [int(n) for n in inside.begin - window.begin]
        after = [int(n) for n in window.end - inside.end]
        width = list(zip(before, after, strict=True))
        raw = np.pad(raw, width, "symmetric")
        labels, usable = np.pad(labels, width), np.pad(usable, width)
    return Sample(raw.astype(np.float32) / np.float32(255), labels, usable)


def read_warped(volume: TrainingVolume, window: Roi, warp: Warp) -> Sample:
    """The voxels that a warp about the window's centre brings into a window of this shape.

    Reads the smallest box that holds all of them, as far as the volume has it.
    """
    monai = _monai()
    shape = [int(n) for n in window.shape[1:]]
    affine = monai.AffineGrid(
        rotate_params=warp.radians, scale_params=[1 / factor for factor in warp.factors]
    )
    # (2, Y, X), voxels from the centre of the window
    places = affine(spatial_size=shape)[0].as_tensor()[:2]
    if warp.field is not None:
        places += torch.from_numpy(warp.field)
    centre = [lo + (n - 1) / 2 for lo, n in zip(window.begin[1:], shape, strict=True)]
    box = _around(places, centre, window, volume.roi)
    for axis in range(2):
        middle = box.begin[axis + 1] + (box.shape[axis + 1] - 1) / 2
        places[axis] += centre[axis] - float(middle)
    return _resampled(volume, box, places)


def _around(places: torch.Tensor, centre: list[float], window: Roi, bounds: Roi) -> Roi:
    """Box of all voxels that interpolation looks at, cut to the bounds, with the window's own."""
    begin, end = [int(window.begin[0])], [int(window.end[0])]
    for axis in range(2):
        low, high = (float(n) + centre[axis] for n in torch.aminmax(places[axis]))
        begin.append(math.floor(low))
        end.append(math.floor(high) + 2)
    shape = [hi - lo for lo, hi in zip(begin, end, strict=True)]
    return clip(Roi(begin, shape).union(window), bounds)


def _resampled(volume: TrainingVolume, box: Roi, places: torch.Tensor) -> Sample:
    """Voxels of a box at places counted from its centre."""
    raw, labels, usable = volume.read(box)
    if labels.max() >= EXACT_IN_FLOAT32:
        labels = compact(labels)
    resample = _monai().Resample(align_corners=False, dtype=torch.float32)
    grey = resample(
        torch.from_numpy(raw).float() / 255, places, mode="bilinear", padding_mode="reflection"
    )
    # Both at once, so that they cannot differ; what is beyond becomes 0.
    both = torch.cat([torch.from_numpy(labels).float(), torch.from_numpy(usable).float()])
    both = resample(both, places, mode="nearest", padding_mode="zeros")
    moved, valid = both.as_tensor().numpy().reshape(2, len(raw), *places.shape[1:])
    return Sample(grey.as_tensor().numpy(), moved.astype(np.int32), valid > 0)


@cache
def _monai() -> Any:
    """MONAI's transforms; importing them takes seconds, and only augmented training needs them."""
    import monai.transforms

    return monai.transforms


def prepare() -> None:
    """Import now what the first warp would import, so that forked workers share it."""
    _monai()
