"""What a volume is, and the two kinds there are: in memory and on storage.

A ROI given to `read` and `write` is always in voxels of the domain, never of the stored array:
the two differ by `Volume.roi.begin`. How a format is found is in `formats.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emslice.errors import GeometryError, StorageError, VolumeError
from emslice.geometry.boxes import Coordinate, Roi, show, within
from emslice.volumes import tensors
from emslice.volumes.attributes import Placement


class Volume(Protocol):
    """A 3D array, or a 4D one with leading channels, somewhere in a domain.

    The attributes are facts, readable without touching any voxel. A volume pickles: what reaches
    a worker is the facts, and the handle is born there.
    """

    url: str
    """Absolute path of a folder, ``"memory"`` for an array."""

    dtype: np.dtype[Any]

    channels: int | None
    """Length of the leading channel axis; None for a 3D array."""

    roi: Roi
    """What is stored, in domain voxels."""

    domain: Roi
    """The full extent of the raw volume; begins at the origin."""

    resolution_nm: tuple[float, float, float] | None
    """Nanometres per voxel, z, y, x; None if nobody said."""

    chunk_shape: Coordinate
    """Voxels z, y, x read at once; the grid of chunks is anchored at ``roi.begin``."""

    shard_shape: Coordinate
    """Voxels z, y, x that two writers must not share: a shard, or a chunk if there are none."""

    attributes: dict[str, Any]
    """What else is stored beside the array."""

    def read(self, roi: Roi) -> NDArray[Any]:
        """Copy of the voxels, C-contiguous, shape (Z, Y, X) or (C, Z, Y, X).

        Raises
        ------
        GeometryError
            ``roi`` leaves the stored part.
        StorageError
            The store failed.
        """

    def write(self, roi: Roi, array: NDArray[Any]) -> None:
        """Store the voxels; they are durable when this returns.

        Raises
        ------
        GeometryError
            ``roi`` leaves the stored part, or the array has another shape.
        VolumeError
            The array has another dtype, or the volume was opened for reading.
        StorageError
            The store failed.
        """


class ArrayVolume:
    """A volume around a NumPy array, which it shares: a write changes the array.

    Memory has no chunks, so a chunk is one voxel unless ``chunk_shape`` says otherwise. An array
    in foreign byte order reads as native numbers.

    Examples
    --------
    >>> labels = ArrayVolume(np.arange(6).reshape(1, 2, 3), offset=(0, 4, 4))
    >>> labels.read(Roi((0, 5, 4), (1, 1, 2)))
    array([[[3, 4]]])
    """

    def __init__(
        self,
        array: NDArray[Any],
        *,
        resolution_nm: Sequence[float] | None = None,
        offset: Sequence[int] = (0, 0, 0),
        domain_shape: Sequence[int] | None = None,
        chunk_shape: Sequence[int] = (1, 1, 1),
        attributes: dict[str, Any] | None = None,
        url: str = "memory",
    ) -> None:
        if array.ndim not in (3, 4) or array.size == 0:
            raise VolumeError(
                f"{url}: expected (Z, Y, X) or (C, Z, Y, X), none of them 0, got {array.shape}."
            )
        place = Placement.make(array.shape[-3:], resolution_nm, offset, domain_shape, url)
        self.array = array
        self.url = url
        self.dtype = array.dtype.newbyteorder("=")
        self.channels = array.shape[0] if array.ndim == 4 else None
        self.roi, self.domain, self.resolution_nm = place.roi, place.domain, place.resolution_nm
        self.chunk_shape = self.shard_shape = Coordinate(chunk_shape)
        self.attributes = dict(attributes or {})

    def read(self, roi: Roi) -> NDArray[Any]:
        return self.array[(..., *within(roi, self.roi))].astype(self.dtype, order="C")

    def write(self, roi: Roi, array: NDArray[Any]) -> None:
        _check_write(self, roi, array)
        self.array[(..., *within(roi, self.roi))] = array


@dataclass(eq=False)
class StoredVolume:
    """A volume on storage; made by `open_volume` and `create_volume`.

    The handle is opened at the first read or write and never pickled.
    """

    url: str
    path: str
    """Folder of the array itself; differs from the URL where that names an OME-Zarr group."""

    driver: str
    dtype: np.dtype[Any]
    channels: int | None
    roi: Roi
    domain: Roi
    resolution_nm: tuple[float, float, float] | None
    chunk_shape: Coordinate
    shard_shape: Coordinate
    attributes: dict[str, Any]
    writable: bool = False

    def read(self, roi: Roi) -> NDArray[Any]:
        box = (..., *within(roi, self.roi))
        try:
            return np.ascontiguousarray(self._tensor[box].read(order="C").result())
        except tensors.ERRORS as error:
            raise StorageError(f"{self.url}: reading {show(roi)} failed: {error}") from error

    def write(self, roi: Roi, array: NDArray[Any]) -> None:
        if not self.writable:
            raise VolumeError(f"{self.url}: opened for reading; open it with writable=True.")
        _check_write(self, roi, array)
        box = (..., *within(roi, self.roi))
        try:
            tensors.write_tensor(self._tensor[box], array)
        except tensors.ERRORS as error:
            raise StorageError(f"{self.url}: writing {show(roi)} failed: {error}") from error

    @cached_property
    def _tensor(self) -> Any:
        return tensors.open_tensor(self.path, self.driver, self.writable)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_tensor"}


def _check_write(volume: Volume, roi: Roi, array: NDArray[Any]) -> None:
    leading = () if volume.channels is None else (volume.channels,)
    expected = (*leading, *(int(n) for n in roi.shape))
    if array.shape != expected:
        raise GeometryError(
            f"{volume.url}: writing {show(roi)} takes shape {expected}, got {array.shape}."
        )
    if array.dtype != volume.dtype:
        # A silent cast would wrap ids; the caller knows which loss is meant.
        raise VolumeError(f"{volume.url}: stores {volume.dtype}, got {array.dtype}; convert first.")
