"""A segmentation on storage, scored layer by layer."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np

from emslice.errors import ConfigError, VolumeError
from emslice.geometry.boxes import cut, parse_roi, show
from emslice.metrics import Scores, count_overlaps
from emslice.volumes import Volume, open_volume

LAYER_VOXELS = 2**26
"""Voxels read at once."""


def evaluate_volumes(segmentation_url: str, truth_url: str, roi: str | None = None) -> Scores:
    """Scores over a box, by default the one that the segmentation covers.

    Raises
    ------
    ConfigError
        Volumes of other kinds, or a box that one of them does not cover.
    """
    segmentation, truth = _open(segmentation_url, "SEG"), _open(truth_url, "TRUTH")
    box = parse_roi(roi, segmentation.domain) if roi is not None else segmentation.roi
    for volume, name in ((segmentation, "SEG"), (truth, "TRUTH")):
        if not volume.roi.contains(box):
            raise ConfigError(
                f"{name} {volume.url} covers {show(volume.roi)}, not all of {show(box)}. "
                f"Choose a box that both cover by --roi."
            )
    step = max(1, LAYER_VOXELS // int(box.shape[1] * box.shape[2]))
    tables = (
        count_overlaps(segmentation.read(layer), truth.read(layer))
        for layer in cut(box, axis=0, step=step)
    )
    return reduce(add, tables).scores()


def _open(url: str, name: str) -> Volume:
    volume = open_volume(url)
    if volume.channels is not None or not np.issubdtype(volume.dtype, np.integer):
        kind = f"{volume.channels} channels of " if volume.channels is not None else ""
        raise VolumeError(f"{name} {url}: holds {kind}{volume.dtype}; expected integer labels.")
    return volume
