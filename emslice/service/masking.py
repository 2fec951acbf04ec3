"""A mask is checked before any work: it must say of every voxel of the run whether it is kept."""

from __future__ import annotations

from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi, show
from emslice.volumes import Volume, open_volume
from emslice.volumes.resolutions import check_resolution


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
    check_resolution(
        f"mask {url}:", mask.resolution_nm, f"the input {source.url}", source.resolution_nm
    )
    return mask
