"""A segmentation on storage, scored layer by layer."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np

from emslice.errors import ConfigError, VolumeError
from emslice.geometry.boxes import Roi, cut, parse_roi, show
from emslice.metrics import Scores, count_overlaps
from emslice.volumes import Volume, open_volume

LAYER_VOXELS = 2**26
"""Voxels read at once."""


def evaluate_volumes(
    segmentation_url: str, truth_url: str, roi: str | None = None, ignore: int = 0
) -> Scores:
    """Scores over a box, by default the one that the segmentation covers.

    Voxels with the true label ``ignore`` are left out.

    Raises
    ------
    ConfigError
        Volumes of other kinds, or a box that one of them does not cover.
    """
    segmentation, truth = open_labels(segmentation_url, "SEG"), open_labels(truth_url, "TRUTH")
    box = parse_roi(roi, segmentation.domain) if roi is not None else segmentation.roi
    for volume, name in ((segmentation, "SEG"), (truth, "TRUTH")):
        check_covers(volume, box, name)
    step = max(1, LAYER_VOXELS // int(box.shape[1] * box.shape[2]))
    tables = (
        count_overlaps(segmentation.read(layer), truth.read(layer), ignore)
        for layer in cut(box, axis=0, step=step)
    )
    return reduce(add, tables).scores()


def check_covers(volume: Volume, box: Roi, name: str) -> None:
    """Raise `ConfigError` unless a volume covers a box."""
    if not volume.roi.contains(box):
        raise ConfigError(
            f"{name} {volume.url} covers {show(volume.roi)}, not all of {show(box)}. "
            f"Choose a box that both cover by --roi."
        )


def open_labels(url: str, name: str) -> Volume:
    """Volume of integers without channels.

    Raises
    ------
    VolumeError
        Something else, or nothing.
    """
    volume = open_volume(url)
    if volume.channels is not None or not np.issubdtype(volume.dtype, np.integer):
        kind = f"{volume.channels} channels of " if volume.channels is not None else ""
        raise VolumeError(f"{name} {url}: holds {kind}{volume.dtype}; expected integer labels.")
    return volume
