"""A mask is checked before any work: it must say of every voxel of the run whether it is kept."""

from __future__ import annotations

import numpy as np

from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi, show
from emslice.volumes import Volume, open_volume


def open_mask(url: str, source: Volume, roi: Roi) -> Volume:
    """The mask of a run over a box of its input.

    Raises
    ------
    ConfigError
        Not integers or booleans, channels, another domain or resolution, or a box of which the
        mask knows nothing.
    """
    mask = open_volume(url)
    if mask.channels is not None or mask.dtype.kind not in "bui":
        form = "one volume" if mask.channels is None else f"{mask.channels} channels"
        raise ConfigError(
            f"mask {url}: holds {form} of {mask.dtype}; expected one volume (Z, Y, X) of integers "
            f"or booleans, not 0 where voxels are kept."
        )
    if mask.domain != source.domain:
        raise ConfigError(
            f"mask {url}: belongs to a volume of {tuple(mask.domain.shape)} voxels, the input "
            f"{source.url} to one of {tuple(source.domain.shape)}. They must be the same."
        )
    if not mask.roi.contains(roi):
        raise ConfigError(
            f"mask {url}: covers {show(mask.roi)}, not all of the box {show(roi)} of this run. "
            f"Choose a smaller box by --roi."
        )
    mine, theirs = mask.resolution_nm, source.resolution_nm
    if mine is not None and theirs is not None and not np.allclose(mine, theirs, rtol=1e-6):
        have, want = (" x ".join(f"{n:g}" for n in r) for r in (mine, theirs))
        raise ConfigError(
            f"mask {url}: has voxels of {have} nm, the input {source.url} of {want} nm. Resample "
            f"the mask to the voxels of the input."
        )
    return mask
