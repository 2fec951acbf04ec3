"""One array of a training volume: its facts, whatever the format, and its sections in slabs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.errors import ConfigError, StorageError, VolumeError
from emslice.geometry.boxes import Coordinate, Roi, within
from emslice.volumes import ArrayVolume, Volume
from emslice.volumes.sources import DECODING, open_source

SLAB_BYTES = 64 << 20
"""What is read at once on the way into memory, if a section is not more."""


@dataclass(frozen=True)
class ArrayFacts:
    """A 3D array that exists, can be decoded, and has not been read."""

    text: str
    """As the user wrote it."""

    dtype: np.dtype[Any]

    roi: Roi
    """Its voxels in its domain; a file is a domain of its own."""

    resolution_nm: tuple[float, float, float] | None

    volume: Volume | None
    """Set if any box can be read at little cost."""


def find_array(text: str, key: str) -> ArrayFacts:
    """Facts of the array that a path or URL names.

    Raises
    ------
    VolumeError
        Missing, not an array, not decodable, or with channels; begins with ``key``.
    """
    try:
        with open_source(text) as source:
            shape, volume = source.shape, source.volume
            roi = Roi((0, 0, 0), shape[-3:]) if volume is None else volume.roi
            facts = ArrayFacts(text, source.dtype, roi, source.resolution_nm, volume)
    except ConfigError as error:
        raise VolumeError(f"{key}: {error}") from error
    if len(shape) != 3:
        raise VolumeError(f"{key}: {text} has the shape {shape}; expected (Z, Y, X), no channels.")
    return facts


def facts_of(array: NDArray[Any], name: str) -> ArrayFacts:
    """Facts of an array in memory."""
    if array.ndim != 3:
        raise VolumeError(f"{name}: its shape is {array.shape}; expected (Z, Y, X).")
    volume = ArrayVolume(array)
    return ArrayFacts(name, volume.dtype, volume.roi, None, volume)


def slabs_of(facts: ArrayFacts, roi: Roi) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Whole sections of a box, some at a time, each with its place along z within the box.

    Raises
    ------
    StorageError
        A section cannot be read.
    """
    depth, height, width = (int(n) for n in roi.shape)
    step = max(1, SLAB_BYTES // (height * width * facts.dtype.itemsize))
    places = [slice(z, min(z + step, depth)) for z in range(0, depth, step)]
    if facts.volume is not None:
        for z in places:
            begin = roi.begin + Coordinate(z.start, 0, 0)
            yield z, facts.volume.read(Roi(begin, (z.stop - z.start, height, width)))
        return
    z0, y, x = within(roi, facts.roi)
    with open_source(facts.text) as source:
        for z in places:
            sections = slice(z0.start + z.start, z0.start + z.stop)
            try:
                rows = source.read(sections, y)
            except DECODING as error:
                raise StorageError(
                    f"{facts.text}: sections {sections.start} to {sections.stop - 1} cannot be "
                    f"read: {error}"
                ) from error
            yield z, np.asarray(rows[..., x])
