"""Importing: any stack of sections, copied once into a chunked volume.

The copy gets its name when it is whole (`partial.py`), so a killed import never leaves something
that looks finished. What can be read is in `sources.py`.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.errors import StorageError, VolumeError
from emslice.geometry.boxes import Coordinate, Roi, clip
from emslice.volumes.attributes import check_nm
from emslice.volumes.creating import counts, create_volume
from emslice.volumes.formats import open_volume
from emslice.volumes.partial import growing
from emslice.volumes.places import local_path
from emslice.volumes.sources import DECODING, Read, Source, open_source
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
        Nothing was written: see `open_source` and `create_volume`; or ``dst`` exists, or another
        import to it is running.
    StorageError
        A section cannot be decoded, or the disk is full. What was written is removed.

    Notes
    -----
    Peak memory: twice a slab, which is a layer of chunks (16 sections) or the part of its rows
    that fits 1 GiB; and one section if the source is made of images. Of images larger than that,
    a layer lies decoded on the disk of ``dst`` meanwhile.
    """
    target = local_path(dst)
    if os.path.lexists(target):
        raise VolumeError(f"{target}: exists already; choose another DST or remove it.")
    # Checked here, where DST still has its own name.
    if resolution_nm is not None:
        resolution_nm = check_nm(resolution_nm, f"{target}: --resolution")
    if chunk_shape is not None:
        chunk_shape = counts(chunk_shape, "chunk_shape", target)
    with open_source(src) as source, growing(target) as array:
        copy = _create(source, array, src, resolution_nm, chunk_shape)
        _copy(source, copy, progress)
    return open_volume(target)


def _create(
    source: Source,
    array: Path,
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
        array,
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
    band = _band(copy, voxel)
    with ExitStack() as stack:
        read = source.read
        if source.by_section and band < copy.roi.shape[1]:
            read = stack.enter_context(_decoded_once(source, copy))
        for slab in _slabs(copy, band):
            z, y, _ = (
                slice(int(lo), int(hi))
                for lo, hi in zip(
                    slab.begin - copy.roi.begin, slab.end - copy.roi.begin, strict=True
                )
            )
            try:
                voxels = read(z, y)
            except DECODING as error:
                raise StorageError(
                    f"sections {z.start}:{z.stop} cannot be read: {error}"
                ) from error
            copy.write(slab, np.ascontiguousarray(voxels, dtype=copy.dtype))
            done += voxels.size * copy.dtype.itemsize
            if progress is not None:
                progress(done, total)


@contextmanager
def _decoded_once(source: Source, copy: Volume) -> Iterator[Read]:
    """Read that keeps the current layer in a nameless file, beside the copy.

    Without it every band of rows would decode all its sections again.
    """
    *lead, _, height, width = source.shape
    shape = (*lead, int(copy.chunk_shape[0]), height, width)
    with TemporaryFile(dir=Path(copy.url).parent) as file:
        try:
            # A full disk is an error here; in the memory map below it would kill the process.
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * source.dtype.itemsize)
        except OSError as error:
            raise StorageError(f"{copy.url}: no room for a layer of {shape}: {error}") from error
        layer = np.memmap(file, source.dtype, "r+", shape=shape)
        held: slice | None = None

        def read(z: slice, y: slice) -> NDArray[Any]:
            nonlocal held
            if z != held:
                held = None
                for k in range(z.start, z.stop):
                    section = source.read(slice(k, k + 1), slice(0, height))
                    layer[..., k - z.start, :, :] = section[..., 0, :, :]
                held = z
            return np.array(layer[..., : z.stop - z.start, y, :])

        yield read


def _band(copy: Volume, voxel_bytes: int) -> int:
    """Rows copied at once: whole chunks."""
    depth, height, _ = (int(n) for n in copy.chunk_shape)
    row_bytes = depth * height * int(copy.roi.shape[2]) * voxel_bytes
    return height * max(1, SLAB_BYTES // row_bytes)


def _slabs(copy: Volume, band: int) -> Iterator[Roi]:
    """Boxes of whole chunks, so that none is written twice: a layer, in bands if it is large."""
    depth = copy.chunk_shape[0]
    size = Coordinate(depth, band, copy.roi.shape[2])
    for z in range(0, int(copy.roi.shape[0]), depth):
        for y in range(0, int(copy.roi.shape[1]), band):
            yield clip(Roi(copy.roi.begin + Coordinate(z, y, 0), size), copy.roi)


def _stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
