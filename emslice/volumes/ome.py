"""The part of OME-Zarr that emslice reads: which array is level 0, and its resolution.

``multiscales`` 0.4 lies in ``.zattrs``, 0.5 in ``zarr.json`` under ``attributes.ome``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from emslice.errors import VolumeError
from emslice.volumes.attributes import Triple, check_axes, triple_nm


@dataclass(frozen=True)
class LevelZero:
    """The array at full resolution."""

    path: str
    """Relative to the group."""

    resolution_nm: Triple | None


def level_zero(attributes: dict[str, Any], where: str) -> LevelZero | None:
    """Level 0 of a group's first image; None if the group is not an OME image.

    Raises
    ------
    VolumeError
        Multiscales without a dataset, or axes in another order than z, y, x.
    """
    inner = attributes.get("ome", attributes)
    images = inner.get("multiscales") if isinstance(inner, dict) else None
    if not images:
        return None
    try:
        image = images[0]
        dataset = image["datasets"][0]
        path = str(dataset["path"])
    except (KeyError, IndexError, TypeError):
        raise VolumeError(
            f"{where}: its OME multiscales name no dataset; open the array itself."
        ) from None
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in image.get("axes") or ()]
    check_axes([axis.get("name") for axis in axes], where)
    scales = [_scale(dataset), _scale(image)]  # the image's own applies to all levels, on top
    if scales[0] is None:
        return LevelZero(path, None)
    values = [
        math.prod(pair) for pair in zip(scales[0], scales[1] or [1] * len(scales[0]), strict=False)
    ]
    units = [axis.get("unit") for axis in axes] or None
    return LevelZero(path, triple_nm(values, units))


def _scale(part: dict[str, Any]) -> list[float] | None:
    for transformation in part.get("coordinateTransformations") or ():
        if transformation.get("type") == "scale":
            return list(transformation["scale"])
    return None
