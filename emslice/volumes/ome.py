"""The part of OME-Zarr that emslice reads: which array is level 0, and its resolution.

``multiscales`` 0.4 lies in ``.zattrs``, 0.5 in ``zarr.json`` under ``attributes.ome``.
"""

from __future__ import annotations

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
        axes = image.get("axes") or []
    except (KeyError, IndexError, TypeError, AttributeError):
        raise VolumeError(
            f"{where}: its OME multiscales name no dataset; open the array itself."
        ) from None
    listed = axes if isinstance(axes, list) else []
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in listed]
    check_axes([axis.get("name") for axis in axes], where)
    scales = [_scale(dataset), _scale(image)]  # the image's own applies to all levels, on top
    if scales[0] is None:
        return LevelZero(path, None)
    over = [1.0] * len(scales[0]) if scales[1] is None else scales[1]
    values = [mine * theirs for mine, theirs in zip(scales[0], over, strict=False)]
    units = [axis.get("unit") for axis in axes] or None
    return LevelZero(path, triple_nm(values, units))


def _scale(part: dict[str, Any]) -> list[float] | None:
    """Factors of the scale; None if there is none, empty (hence no resolution) if illegible."""
    steps = part.get("coordinateTransformations")
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, dict) and step.get("type") == "scale":
            factors = step.get("scale")
            try:
                return [float(factor) for factor in factors] if isinstance(factors, list) else []
            except (TypeError, ValueError, OverflowError):
                return []
    return None
