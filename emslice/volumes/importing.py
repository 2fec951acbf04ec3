"""Importing: any stack of sections, copied once into a chunked volume.

The copy grows in ``DST.partial`` and gets its name when it is whole, so a killed import never
leaves something that looks finished. What can be read is in `sources.py`.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from emslice.errors import StorageError, VolumeError
from emslice.geometry.boxes import Coordinate, Roi, clip
from emslice.volumes.creating import create_volume
from emslice.volumes.formats import open_volume
from emslice.volumes.places import local_path
from emslice.volumes.sources import Source, open_source
from emslice.volumes.volume import Volume

SLAB_BYTES = 1 << 30
"""What is copied at once, if a row of chunks is not more."""

log = logging.getLogger(__name__)


def import_volume(
    src: str | Path,
    dst: str | Path,
    resolution_nm: Sequence[float] | None = None,
    chunk_shape: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Volume:
    """Volume at ``dst`` (zarr v3) with the voxels of ``src``.

    Booleans become uint8 and big-endian numbers little-endian; nothing else changes. A copied
    volume keeps its place in the domain.

    Parameters
    ----------
    src : ``file.h5:dataset``, a TIFF stack, a folder of TIFF or PNG sections, ``.npy``, a volume
    resolution_nm : (z, y, x); what the source states if None
    progress : called with bytes copied and bytes in all

    Raises
    ------
    ConfigError
        Nothing was written: see `open_source` and `create_volume`; or ``dst`` exists.

    Notes
    -----
    Peak memory: twice a slab, which is a layer of chunks (16 sections) or the part of its rows
    that fits 1 GiB; and one section if the source is made of images.
    """
    target = local_path(dst)
    if os.path.lexists(target):
        raise VolumeError(f"{target}: exists already; choose another DST or remove it.")
    partial = target.with_name(f"{target.name}.partial")
    with open_source(src) as source:
        if partial.is_dir():
            shutil.rmtree(partial)
        copy = _create(source, partial, src, resolution_nm, chunk_shape)
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, partial)
            _copy(source, copy, progress)
            undo.pop_all()
    partial.rename(target)
    _sync_folder(target.parent)
    return open_volume(target)


def _create(
    source: Source,
    partial: Path,
    src: str | Path,
    resolution_nm: Sequence[float] | None,
    chunk_shape: Sequence[int] | None,
) -> Volume:
    """The empty copy, placed as the source is."""
    place: dict[str, Any] = {}
    attributes = {"imported_from": str(src)}
    if source.volume is not None:
        place = {"offset": source.volume.roi.begin, "domain_shape": source.volume.domain.shape}
        attributes = {**source.volume.attributes, **attributes}
    return create_volume(
        partial,
        shape=source.shape[-3:],
        dtype=_stored_dtype(source.dtype),
        channels=source.shape[0] if len(source.shape) == 4 else None,
        chunk_shape=chunk_shape,
        resolution_nm=source.resolution_nm if resolution_nm is None else resolution_nm,
        attributes=attributes,
        **place,
    )


def _copy(source: Source, copy: Volume, progress: Callable[[int, int], None] | None) -> None:
    voxel = copy.dtype.itemsize * (copy.channels or 1)
    done, total = 0, math.prod(source.shape) * copy.dtype.itemsize
    log.info("importing %s: %d bytes to %s", source.shape, total, copy.url)
    for slab in _slabs(copy, voxel):
        z, y, _ = (
            slice(int(lo), int(hi))
            for lo, hi in zip(slab.begin - copy.roi.begin, slab.end - copy.roi.begin, strict=True)
        )
        try:
            voxels = source.read(z, y)
        except (OSError, ValueError) as error:
            raise StorageError(f"sections {z.start}:{z.stop} cannot be read: {error}") from error
        copy.write(slab, np.ascontiguousarray(voxels, dtype=copy.dtype))
        done += voxels.size * copy.dtype.itemsize
        if progress is not None:
            progress(done, total)


def _slabs(copy: Volume, voxel_bytes: int) -> Iterator[Roi]:
    """Boxes of whole chunks, so that none is written twice: a layer, in bands if it is large."""
    depth, height, _ = copy.chunk_shape
    row_bytes = depth * height * int(copy.roi.shape[2]) * voxel_bytes
    band = height * max(1, SLAB_BYTES // row_bytes)
    size = Coordinate(depth, band, copy.roi.shape[2])
    for z in range(0, int(copy.roi.shape[0]), depth):
        for y in range(0, int(copy.roi.shape[1]), band):
            yield clip(Roi(copy.roi.begin + Coordinate(z, y, 0), size), copy.roi)


def _stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


def _sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
