"""Small training volumes whose voxels say where they came from."""

from dataclasses import replace

import numpy as np

from emslice.training.augment import Augmentation
from emslice.training.defects import Defects
from emslice.training.sources import TrainingVolume

NO_DEFECTS = Defects(
    missing=0, shift=0, misalignment=0, blur=0, dirt=0, noise=0,
    missing_sections=1, displacement=6, blur_sigma=2.0, dirt_spots=3, dirt_radius=5.0,
    noise_std=0.1,
)  # fmt: skip
NOTHING = Augmentation(
    probability=1, flip=0, rotate=0, rescale=0, elastic=0, grey=0,
    degrees=360, scale=0.2, elastic_alpha=16, elastic_sigma=4,
    contrast=0.3, brightness=0.3, gamma=1, defects=NO_DEFECTS,
)  # fmt: skip
MOVED = replace(
    NOTHING, flip=1, rotate=1, rescale=1, elastic=1,
    defects=replace(NO_DEFECTS, shift=1, misalignment=1),
)  # fmt: skip
EVERYTHING = replace(
    MOVED, grey=1,
    defects=replace(MOVED.defects, missing=1, blur=1, dirt=1, noise=1),
)  # fmt: skip
"""Each change in each sample."""

SHAPE = (7, 61, 83)


def along(axis, shape=SHAPE, **options):
    """Raw is the index along an axis, labels are that plus one."""
    index = np.broadcast_to(np.moveaxis(np.arange(shape[axis])[:, None, None], 0, axis), shape)
    labels = (index + 1).astype(np.uint64)
    return TrainingVolume.from_arrays(index.astype(np.uint8), labels, **options)


def noise(shape=SHAPE, seed=3, labelled=True, **options):
    """Random raw, and labels 1 to 40 in boxes of 2 x 5 x 6 with some background."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, shape).astype(np.uint8)
    ids = rng.integers(0, 41, [n // side + 1 for n, side in zip(shape, (2, 5, 6), strict=True)])
    z, y, x = np.indices(shape)
    labels = ids[z // 2, y // 5, x // 6]
    return TrainingVolume.from_arrays(raw, labels if labelled else None, **options)
