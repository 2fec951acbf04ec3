"""Making volumes: an empty array with its place in the domain written beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from emslice.errors import AlignmentError, VolumeError
from emslice.volumes import tensors
from emslice.volumes.attributes import Placement
from emslice.volumes.formats import KINDS, open_volume
from emslice.volumes.places import local_path
from emslice.volumes.volume import Volume

DEFAULT_CHUNK = (16, 256, 256)
"""Voxels z, y, x.

Prediction reads whole sections in order, so chunks are thin: a lone section decodes 16, not 64.
One mega-voxel keeps the number of files low (a tera-voxel is a million), and its near-cube in nm
(480 x 1536 x 1536 at 30 x 6 x 6) suits the blocks of the later stages.
"""

ZSTD_LEVEL = 3


@dataclass(frozen=True)
class Plan:
    """An array to be made; shapes include the channels."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: tuple[int, ...]
    shard: tuple[int, ...] | None
    attributes: dict[str, Any]

    @property
    def axes(self) -> list[str]:
        """Names, slowest first."""
        return ["c", "z", "y", "x"][-len(self.shape) :]

    @property
    def fill_value(self) -> bool | int | float:
        """Zero of the dtype; chunks that hold nothing else are not stored."""
        zero: bool | int | float = self.dtype.type(0).item()
        return zero


def create_volume(
    url: str | Path,
    *,
    shape: Sequence[int],
    dtype: DTypeLike,
    channels: int | None = None,
    chunk_shape: Sequence[int] | None = None,
    shard_shape: Sequence[int] | None = None,
    resolution_nm: Sequence[float] | None = None,
    offset: Sequence[int] = (0, 0, 0),
    domain_shape: Sequence[int] | None = None,
    attributes: dict[str, Any] | None = None,
    format: str = "zarr3",
) -> Volume:
    """New volume of zeros, open for writing.

    Parameters
    ----------
    shape, chunk_shape, shard_shape : (z, y, x) voxels
        Without the channels, of which each has its own chunks. Clipped to the shape.
    offset : (z, y, x) voxels
        Of the first stored voxel in the domain.
    domain_shape : (z, y, x) voxels
        offset + shape if None.
    format : "zarr3", "zarr2" or "n5"
        Shards exist in zarr3 only.

    Raises
    ------
    VolumeError
        Something is there already, or such an array cannot be made.
    AlignmentError
        A shard is not a whole number of chunks.
    StorageError
        The disk is full, or the store failed otherwise.
    """
    path = local_path(url)
    if os.path.lexists(path):
        raise VolumeError(f"{path}: exists already; choose another path or remove it.")
    if format not in FORMATS:
        raise VolumeError(f"{path}: format {format!r}: choose one of {', '.join(FORMATS)}.")
    voxels = counts(shape, "shape", path)
    place = Placement.make(voxels, resolution_nm, offset, domain_shape, str(path))
    chunk, shard = _chunks(voxels, chunk_shape, shard_shape, path)
    if shard is not None and format != "zarr3":
        raise VolumeError(f"{path}: {format} has no shards; leave shard_shape out or use zarr3.")
    lead, one = ((), ()) if channels is None else (counts([channels], "channels", path, 1), (1,))
    plan = Plan(
        shape=(*lead, *voxels),
        dtype=_dtype(dtype, format, path),
        chunk=(*one, *chunk),
        shard=None if shard is None else (*one, *shard),
        attributes={**(attributes or {}), **place.to_attributes()},
    )
    FORMATS[format](path, plan)
    return open_volume(path, writable=True)


def _create_zarr3(path: Path, plan: Plan) -> None:
    codecs: list[dict[str, Any]] = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}},
    ]
    if plan.dtype.itemsize == 1:
        codecs[0].pop("configuration")
    if plan.shard is not None:
        inner = {"chunk_shape": plan.chunk, "codecs": codecs}
        codecs = [{"name": "sharding_indexed", "configuration": inner}]
    grid = {"chunk_shape": plan.shard or plan.chunk}
    metadata = {
        "shape": plan.shape,
        "data_type": plan.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": grid},
        "codecs": codecs,
        "fill_value": plan.fill_value,
        "dimension_names": plan.axes,
        "attributes": plan.attributes,
    }
    tensors.create_tensor(str(path), "zarr3", metadata)


def _create_zarr2(path: Path, plan: Plan) -> None:
    # Attributes have a file of their own here; first, so that no array is ever seen without.
    try:
        path.mkdir(parents=True)
        with open(path / ".zattrs", "w") as file:
            json.dump({**plan.attributes, "_ARRAY_DIMENSIONS": plan.axes}, file)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise tensors.failure(f"{path}: cannot be made", error) from error
    metadata = {
        "shape": plan.shape,
        "dtype": plan.dtype.newbyteorder("<").str,
        "chunks": plan.chunk,
        "compressor": {"id": "blosc", "cname": "zstd", "clevel": ZSTD_LEVEL, "shuffle": 1},
        "fill_value": plan.fill_value,
        "filters": None,
        "order": "C",
        "dimension_separator": "/",
    }
    tensors.create_tensor(str(path), "zarr", metadata)


def _create_n5(path: Path, plan: Plan) -> None:
    metadata = {
        **plan.attributes,
        "dimensions": plan.shape[::-1],
        "blockSize": plan.chunk[::-1],
        "dataType": plan.dtype.name,
        # Slower than zstd, but the one codec besides raw that every N5 reader has.
        "compression": {"type": "gzip", "level": 1, "useZlib": False},
        "axes": plan.axes[::-1],
    }
    if "resolution_nm" in plan.attributes:
        nm = plan.attributes["resolution_nm"]
        metadata["pixelResolution"] = {"dimensions": nm[::-1], "unit": "nm"}
    tensors.create_tensor(str(path), "n5", metadata)


FORMATS: dict[str, Callable[[Path, Plan], None]] = {
    "zarr3": _create_zarr3,
    "zarr2": _create_zarr2,
    "n5": _create_n5,
}


def _chunks(
    shape: tuple[int, ...],
    chunk_shape: Sequence[int] | None,
    shard_shape: Sequence[int] | None,
    path: Path,
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Chunk and shard, clipped to the shape; a clipped shard still is whole chunks."""
    shard = None if shard_shape is None else counts(shard_shape, "shard_shape", path)
    if chunk_shape is not None:
        chunk = counts(chunk_shape, "chunk_shape", path)
    else:
        chunk = tuple(map(min, DEFAULT_CHUNK, shard or DEFAULT_CHUNK))
    clipped = tuple(map(min, chunk, shape))
    if shard is None:
        return clipped, None
    if any(n % step for n, step in zip(shard, chunk, strict=True)):
        raise AlignmentError(
            f"{path}: shard_shape {shard} is not a whole number of chunks {chunk}; "
            f"make each side a multiple."
        )
    held = (
        min(n // step, -(-whole // cut)) * cut
        for n, step, whole, cut in zip(shard, chunk, shape, clipped, strict=True)
    )
    return clipped, tuple(held)


def _dtype(dtype: DTypeLike, format: str, path: Path) -> np.dtype[Any]:
    found = np.dtype(dtype).newbyteorder("=")
    lacking = format == "n5" and found in (np.dtype(bool), np.dtype(np.float16))
    if found.kind not in KINDS or found.itemsize > 8 or lacking:
        raise VolumeError(f"{path}: {format} cannot hold {found}; convert it, to uint8 say.")
    return found


def counts(values: Sequence[int], what: str, path: Path, length: int = 3) -> tuple[int, ...]:
    """The values, if they are that many positive numbers."""
    found = tuple(int(value) for value in values)
    if len(found) != length or min(found) < 1:
        raise VolumeError(f"{path}: {what}: expected {length} positive numbers, got {values!r}.")
    return found
