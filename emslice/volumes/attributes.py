"""Where a volume lies and how large its voxels are, as written beside arrays.

Read, first that answers: emslice (``resolution_nm``, ``offset``, ``domain_shape``), funlib
(``voxel_size`` or ``resolution``), N5 (``pixelResolution``), OME-Zarr (``ome.py``). Only emslice's
own attributes are trusted with a place in the domain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emslice.errors import GeometryError, VolumeError
from emslice.geometry.boxes import Coordinate, Roi

OWN = ("resolution_nm", "offset", "domain_shape")
"""Keys that `Placement` speaks for."""

NM = {
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre"), 1.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "micrometer", "micrometers", "micrometre"), 1e3),
}
"""Nanometres in a unit."""

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Placement:
    """Where an array lies in its domain."""

    roi: Roi
    """What is stored, in domain voxels."""

    domain: Roi
    """Begins at the origin."""

    resolution_nm: Triple | None

    @classmethod
    def make(
        cls,
        shape: Sequence[int],
        resolution_nm: Sequence[float] | None,
        offset: Sequence[int],
        domain_shape: Sequence[int] | None,
        where: str,
    ) -> Placement:
        """Checked placement of an array of this z, y, x shape."""
        begin = _voxels(offset, f"{where}: offset", 0)
        end = Coordinate(lo + int(n) for lo, n in zip(begin, shape, strict=True))
        domain = end if domain_shape is None else _voxels(domain_shape, f"{where}: domain_shape", 1)
        if any(hi > n for hi, n in zip(end, domain, strict=True)):
            raise VolumeError(
                f"{where}: the array ends at voxel {tuple(end)}, outside its domain_shape "
                f"{tuple(domain)}; the domain must hold offset + shape."
            )
        resolution = None
        if resolution_nm is not None:
            resolution = check_nm(resolution_nm, f"{where}: resolution_nm")
        return cls(Roi(begin, end - begin), Roi((0, 0, 0), domain), resolution)

    def to_attributes(self) -> dict[str, Any]:
        """What `read_placement` reads back."""
        place: dict[str, Any] = {
            "offset": [int(n) for n in self.roi.begin],
            "domain_shape": [int(n) for n in self.domain.shape],
        }
        if self.resolution_nm is not None:
            place["resolution_nm"] = list(self.resolution_nm)
        return place


def read_placement(
    attributes: dict[str, Any], shape: Sequence[int], fallback_nm: Triple | None, where: str
) -> Placement:
    """Placement that the attributes of an array state.

    Parameters
    ----------
    shape : (z, y, x) voxels
    fallback_nm : resolution of the group around the array, used if the array states none
    """
    # funlib's "offset" is in nm: only beside our domain_shape is it ours, in voxels.
    ours = "domain_shape" in attributes
    offset = attributes.get("offset", (0, 0, 0)) if ours else (0, 0, 0)
    resolution = attributes.get("resolution_nm")
    if resolution is None:
        resolution = foreign_resolution(attributes) or fallback_nm
    return Placement.make(shape, resolution, offset, attributes.get("domain_shape"), where)


def foreign_resolution(attributes: dict[str, Any]) -> Triple | None:
    """Resolution in nm, zyx, by the conventions of funlib and N5; None if none is legible."""
    for key in ("voxel_size", "resolution"):
        if key in attributes:
            return triple_nm(attributes[key], attributes.get("units"))
    pixel = attributes.get("pixelResolution")
    if isinstance(pixel, dict) and isinstance(pixel.get("dimensions"), list):
        return triple_nm(pixel["dimensions"][:3][::-1], pixel.get("unit"))  # stored x, y, z
    return None


def triple_nm(values: Any, units: Any = None) -> Triple | None:
    """Last three numbers in nm; None unless all are positive and their units known.

    Whatever a file holds may be given here.

    >>> triple_nm([0.03, 6, 6], ["um", "nm", "nm"])
    (30.0, 6.0, 6.0)
    """
    if isinstance(values, str):  # "666" is no three numbers
        return None
    try:
        numbers = [float(value) for value in values][-3:]
        names = [units] * 3 if units is None or isinstance(units, str) else list(units)[-3:]
    except (TypeError, ValueError, OverflowError):
        return None
    factors = [1.0 if name is None else NM.get(str(name).lower(), math.nan) for name in names]
    if len(numbers) != 3 or len(factors) != 3:
        return None
    # Rounded, as 0.006 um is 6 nm and not 6.000000000000001.
    z, y, x = (round(n * factor, 9) for n, factor in zip(numbers, factors, strict=True))
    return (z, y, x) if all(math.isfinite(n) and n > 0 for n in (z, y, x)) else None


def check_nm(values: Any, what: str) -> Triple:
    """Resolution that someone states, or a `GeometryError` that begins with ``what``."""
    listed = isinstance(values, list | tuple | np.ndarray)
    triple = triple_nm(values) if listed and len(values) == 3 else None
    if triple is None:
        raise GeometryError(f"{what}: expected three positive numbers z,y,x, got {values!r}.")
    return triple


def check_axes(names: Any, where: str) -> None:
    """Refuse axes that are named and not (..., z, y, x): a transposed volume looks like data."""
    named = [str(name).lower() for name in names] if isinstance(names, list | tuple) else []
    if {"x", "y", "z"} <= set(named) and named[-3:] != ["z", "y", "x"]:
        raise VolumeError(
            f"{where}: its axes are {','.join(named)}; emslice reads z,y,x with channels first. "
            f"Rewrite it in that order."
        )


def _voxels(values: Sequence[int], what: str, least: int) -> Coordinate:
    try:
        whole = [int(value) for value in values]
        legible = len(whole) == 3 and whole == list(values) and min(whole) >= least
    except (TypeError, ValueError, OverflowError):
        legible = False
    if not legible:
        raise VolumeError(f"{what}: expected three whole numbers >= {least}, got {values!r}.")
    return Coordinate(whole)
