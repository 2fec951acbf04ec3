"""What can be imported, each as z, y, x slabs: HDF5, TIFF stacks, folders of images, .npy, volumes.

A source is checked when it is opened, before anything is written.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from emslice.errors import VolumeError
from emslice.geometry.boxes import Coordinate, Roi
from emslice.volumes.attributes import Triple, triple_nm
from emslice.volumes.formats import KINDS, open_volume
from emslice.volumes.places import (
    HDF5_SUFFIXES,
    IMAGE_SUFFIXES,
    IMPORTED_SUFFIXES,
    TIFF_SUFFIXES,
    local_path,
    split_dataset,
)
from emslice.volumes.volume import Volume

GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "F")
"""Pillow's modes of one number a pixel that is not an index into a palette."""

DECODING = (OSError, ValueError, RuntimeError, ImportError, EOFError, SyntaxError, zlib.error)
"""What h5py, tifffile, imagecodecs and Pillow raise over damaged data or a codec they lack."""

Read = Callable[[slice, slice], NDArray[Any]]
"""Voxels of these sections and rows, all channels and columns."""


@dataclass(frozen=True)
class Source:
    """An array to be imported."""

    shape: tuple[int, ...]
    """(Z, Y, X) or (C, Z, Y, X)."""

    dtype: np.dtype[Any]

    read: Read
    resolution_nm: Triple | None = None
    volume: Volume | None = field(default=None)
    """Set if the source has a place in a domain that the copy must keep."""

    by_section: bool = False
    """A few rows cost as much as the whole section, which has to be decoded."""


@contextmanager
def open_source(text: str | Path) -> Iterator[Source]:
    """Source that ``file.h5:dataset`` or a path names, open until the block ends.

    Raises
    ------
    VolumeError
        Missing, of a kind that is not imported, not a 3D array (4D with leading channels), or
        its first section cannot be decoded.
    """
    name, dataset = split_dataset(str(text))
    path = local_path(name)
    suffix = path.suffix.lower()
    with ExitStack() as stack:
        if path.is_dir():
            source = _open_folder(path)
        elif not path.is_file():
            raise VolumeError(f"{path}: no such file or folder; check the path.")
        elif suffix in HDF5_SUFFIXES:
            source = _open_hdf5(path, dataset, stack)
        elif suffix in TIFF_SUFFIXES:
            source = _open_tiff(path, stack)
        elif suffix == ".npy":
            source = _from_array(_load_npy(path))
        else:
            kinds = ", ".join(kind for kind in IMPORTED_SUFFIXES if kind != ".png")
            raise VolumeError(
                f"{path}: cannot import {suffix or 'a file without suffix'}; supported are "
                f"{kinds}, a folder of TIFF or PNG sections, and zarr or N5 volumes."
            )
        _check(source, str(text))
        yield source


def _check(source: Source, text: str) -> None:
    shape, dtype = source.shape, source.dtype
    if len(shape) not in (3, 4) or 0 in shape:
        raise VolumeError(
            f"{text}: its shape is {shape}; a volume is (Z, Y, X), or (C, Z, Y, X) with channels "
            f"first, and no side is 0."
        )
    if len(shape) == 4 and shape[-1] <= 4 < shape[0]:
        raise VolumeError(f"{text}: its shape {shape} has channels last; move them first.")
    if dtype.kind not in KINDS or dtype.itemsize > 8:
        raise VolumeError(f"{text}: holds {dtype}; a volume holds bool, integers or floats.")
    try:
        source.read(slice(0, 1), slice(0, 1))
    except DECODING as error:
        raise VolumeError(f"{text}: its first section cannot be decoded: {error}") from error


def _from_array(array: Any, resolution_nm: Triple | None = None) -> Source:
    """Source over anything that slices like an array."""
    return Source(tuple(array.shape), array.dtype, lambda z, y: array[..., z, y, :], resolution_nm)


def _load_npy(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise VolumeError(f"{path}: cannot be read as .npy: {error}") from error
    return array


def _open_hdf5(path: Path, dataset: str | None, stack: ExitStack) -> Source:
    try:
        file = stack.enter_context(h5py.File(path, "r"))
    except OSError as error:
        raise VolumeError(f"{path}: cannot be read as HDF5: {error}") from error
    array = file[_choose_dataset(path, file, dataset)]
    resolution = _hdf5_resolution(array.attrs) or _hdf5_resolution(file.attrs)
    return _from_array(array, resolution)


def _choose_dataset(path: Path, file: Any, wanted: str | None) -> str:
    """Name of the dataset asked for, or of the only one that can be meant."""
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.shape is not None:
            found[name] = node.shape

    file.visititems(note)
    if wanted is not None and wanted.strip("/") in found:
        return wanted.strip("/")
    listing = ", ".join(f"{name} {shape}" for name, shape in found.items()) or "none"
    if wanted is not None:
        raise VolumeError(f"{path}: no dataset {wanted!r}; the file has: {listing}.")
    for ndim in (3, 4):
        fitting = [name for name, shape in found.items() if len(shape) == ndim]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            break
    raise VolumeError(f"{path}: which dataset? Give {path.name}:DATASET; the file has: {listing}.")


def _hdf5_resolution(attributes: Any) -> Triple | None:
    for key in ("resolution_zyx_nm", "resolution", "voxel_size", "element_size_um"):
        if key in attributes:
            return triple_nm(attributes[key], "um" if key.endswith("_um") else None)
    return None


def _open_tiff(path: Path, stack: ExitStack) -> Source:
    try:
        file = stack.enter_context(tifffile.TiffFile(path))
        series = file.series
    except (tifffile.TiffFileError, OSError) as error:
        raise VolumeError(f"{path}: cannot be read as TIFF: {error}") from error
    if len(series) != 1:
        shapes = ", ".join(str(part.shape) for part in series)
        raise VolumeError(f"{path}: its pages differ, in shape or type: {shapes}; split the file.")
    stored = series[0]
    shape, axes = stored.shape, stored.axes
    if "S" in axes or axes.find("C") > 0:
        raise VolumeError(
            f"{path}: its axes are {axes}, shape {shape}; a stack is grey, sections after channels."
        )
    if stored.dataoffset is not None:
        # ImageJ writes stacks above 4 GB with one page entry: only the memory map sees them all.
        return _from_array(tifffile.memmap(path, mode="r", series=0))
    return _by_section(_tiff_section(stored), shape, stored.dtype)


def _tiff_section(series: tifffile.TiffPageSeries) -> Callable[[int], NDArray[Any]]:
    """Decoder of one section, all its channels; each page holds one channel of one section."""
    *lead, height, width = series.shape

    def section(z: int) -> NDArray[Any]:
        pages = series.pages[z :: lead[-1]]
        planes = [page.asarray() for page in pages if page is not None]
        return np.stack(planes).reshape(*lead[:-1], height, width)

    return section


def _by_section(
    section: Callable[[int], NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Source:
    """Source that decodes whole sections, and holds one of them at a time."""
    *lead, _, _, width = shape

    def read(z: slice, y: slice) -> NDArray[Any]:
        rows = np.empty((*lead, z.stop - z.start, y.stop - y.start, width), dtype)
        for k in range(z.start, z.stop):
            rows[..., k - z.start, :, :] = section(k)[..., y, :]
        return rows

    return Source(shape, dtype, read, by_section=True)


def _open_folder(path: Path) -> Source:
    images = [
        child
        for child in path.iterdir()
        # "._slice.tif" is a macOS resource fork, not an image.
        if child.suffix.lower() in IMAGE_SUFFIXES and not child.name.startswith(".")
    ]
    if images:
        return _open_images(path, sorted(images, key=_natural))
    volume = open_volume(path)

    def read(z: slice, y: slice) -> NDArray[Any]:
        begin = volume.roi.begin + Coordinate(z.start, y.start, 0)
        return volume.read(Roi(begin, (z.stop - z.start, y.stop - y.start, volume.roi.shape[2])))

    lead = () if volume.channels is None else (volume.channels,)
    shape = (*lead, *(int(n) for n in volume.roi.shape))
    return Source(shape, volume.dtype, read, volume.resolution_nm, volume)


def _open_images(path: Path, images: list[Path]) -> Source:
    first = _image_facts(images[0])
    for image in images[1:]:
        if (facts := _image_facts(image)) != first:
            raise VolumeError(
                f"{path}: all sections must be alike; {images[0].name} is {first[0]} {first[1]}, "
                f"{image.name} is {facts[0]} {facts[1]}."
            )
    shape = (len(images), *first[0])
    return _by_section(lambda z: _read_image(images[z]), shape, first[1])


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts slice2 before slice10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _image_facts(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype from the header alone."""
    try:
        if path.suffix.lower() in TIFF_SUFFIXES:
            with tifffile.TiffFile(path) as file:
                shape, dtype = file.series[0].shape, file.series[0].dtype
        else:
            with _open_png(path) as image:
                shape, dtype = (image.height, image.width), np.dtype(_png_dtype(image))
    except (tifffile.TiffFileError, OSError, IndexError) as error:
        raise VolumeError(f"{path}: cannot be read as an image: {error}") from error
    if len(shape) != 2:
        raise VolumeError(f"{path}: its shape is {shape}; a section is one grey 2D image.")
    return shape, np.dtype(dtype)


def _read_image(path: Path) -> NDArray[Any]:
    if path.suffix.lower() in TIFF_SUFFIXES:
        section: NDArray[Any] = tifffile.imread(path)
        return section
    with _open_png(path) as image:
        return np.asarray(image).astype(_png_dtype(image), copy=False)


def _png_dtype(image: Image.Image) -> str:
    if image.mode not in GREY_MODES:
        raise OSError(f"its mode is {image.mode}; convert it to greyscale")
    return {"1": "bool", "L": "uint8", "I": "int32", "F": "float32"}.get(image.mode, "uint16")


def _open_png(path: Path) -> Image.Image:
    # Pillow refuses images above 179 megapixels as an attack; a section is often larger.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return Image.open(path)
    finally:
        Image.MAX_IMAGE_PIXELS = limit
