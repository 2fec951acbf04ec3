"""Raw and truth of a labelled volume, whatever they are stored as; nothing is imported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.config.evaluate import LabelledVolume
from emslice.errors import ConfigError, StorageError, VolumeError
from emslice.geometry.boxes import Coordinate, Roi, parse_roi, show, within
from emslice.ledger.fingerprint import volume_identity
from emslice.ops.blank import BLANK_SIDE
from emslice.ops.intensity import check_window
from emslice.service.evaluate import check_covers
from emslice.volumes import ArrayVolume, Volume, local_path
from emslice.volumes.places import split_dataset
from emslice.volumes.resolutions import check_resolution
from emslice.volumes.sources import DECODING, Source, open_source


@dataclass(frozen=True)
class Labelled:
    """A checked volume of a test set."""

    volume: LabelledVolume
    roi: Roi
    domain: Roi
    identity: tuple[str, str]
    """Of raw and of truth."""

    @property
    def name(self) -> str:
        """As the test set calls it."""
        return self.volume.name

    @property
    def outline(self) -> Volume:
        """Raw without voxels: its domain, for plans."""
        shape = tuple(int(n) for n in self.domain.shape)
        return ArrayVolume(np.broadcast_to(np.uint8(0), shape))

    def raw(self) -> Volume:
        """Raw; what is no volume on storage is read as a whole."""
        with open_source(self.volume.raw) as source:
            return source.volume or _in_memory(source)

    def truth(self) -> NDArray[Any]:
        """True labels of the box, shape (Z, Y, X)."""
        with _truth(self.volume, self.domain) as source:
            return _read(source, self.roi)


def check_labelled(volume: LabelledVolume, ignore: int) -> Labelled:
    """Facts of a volume, after all checks that need no network.

    Raises
    ------
    ConfigError
        Raw or truth that is missing or of another kind, a box that they do not cover, no voxel
        with a true label in it.
    """
    try:
        with open_source(volume.raw) as source:
            if len(source.shape) != 3:
                raise VolumeError(f"raw {volume.raw}: its shape is {source.shape}, not (Z, Y, X).")
            check_window(source.dtype, volume.segment.raw.window)
            domain, size = _domain(source), source.resolution_nm
            covered = source.volume.roi if source.volume else domain
        if covered != domain:
            raise VolumeError(
                f"raw {volume.raw} covers {show(covered)}, not all of {show(domain)}."
            )
        roi = parse_roi(volume.roi, domain, "roi") if volume.roi is not None else domain
        with _truth(volume, domain) as source:
            check_resolution(f"truth {volume.truth}", source.resolution_nm, "raw", size)
            _check_truth(source, volume.truth, roi, ignore)
        identity = (_identity(volume.raw), _identity(volume.truth))
    except ConfigError as error:
        raise type(error)(f"volumes.{volume.name}: {error}") from error
    return Labelled(volume, roi, domain, identity)


@contextmanager
def _truth(volume: LabelledVolume, domain: Roi) -> Iterator[Source]:
    with open_source(volume.truth) as source:
        place = _domain(source)
        if len(source.shape) == 3 and place != domain:
            raise VolumeError(
                f"truth {volume.truth}: belongs to a volume of {tuple(map(int, place.shape))} "
                f"voxels, raw to one of {tuple(map(int, domain.shape))}; they must be the same "
                f"voxels."
            )
        yield source


def _check_truth(source: Source, url: str, roi: Roi, ignore: int) -> None:
    if len(source.shape) != 3 or source.dtype.kind not in "iu":
        raise VolumeError(
            f"truth {url}: holds {source.dtype} of shape {source.shape}; expected integer labels "
            f"(Z, Y, X)."
        )
    if source.volume is not None:
        check_covers(source.volume, roi, "truth")
    scored = False
    for z in range(int(roi.begin[0]), int(roi.end[0])):
        labels = _read(source, Roi((z, *roi.begin[1:]), (1, *roi.shape[1:])))
        if labels.min() < 0:
            raise ConfigError(
                f"truth {url}: section {z} has labels down to {labels.min()}; expected 0 and more. "
                f"Set what is not labelled to 0."
            )
        scored = scored or bool((labels != ignore).any())
    if not scored:
        raise ConfigError(
            f"truth {url}: every voxel of {show(roi)} is {ignore}, which is ignored: nothing to "
            f"score."
        )


def _domain(source: Source) -> Roi:
    return source.volume.domain if source.volume else Roi((0, 0, 0), source.shape)


def _in_memory(source: Source) -> Volume:
    array = _decoded(source, slice(0, source.shape[0]), slice(0, source.shape[1]))
    return ArrayVolume(np.ascontiguousarray(array), resolution_nm=source.resolution_nm)


def _read(source: Source, roi: Roi) -> NDArray[Any]:
    if source.volume is not None:
        return source.volume.read(roi)
    z, y, x = within(roi, _domain(source))
    return np.ascontiguousarray(_decoded(source, z, y)[..., x])


def _decoded(source: Source, z: slice, y: slice) -> NDArray[Any]:
    try:
        return source.read(z, y)
    except DECODING as error:
        raise StorageError(
            f"sections {z.start} to {z.stop - 1} cannot be decoded: {error}. Copy the file again."
        ) from error


def _identity(url: str) -> str:
    """Of a source: a file answers by its place, size and time of change."""
    name, dataset = split_dataset(url)
    path = local_path(name)
    if path.is_dir():
        return volume_identity(str(path))
    facts = path.stat()
    return json.dumps([str(path.resolve()), dataset, facts.st_size, facts.st_mtime_ns])


def grown(roi: Roi, domain: Roi) -> Roi:
    """A box and what its affinities and its blank voxels depend on, where there is some."""
    far = BLANK_SIDE - 1
    return roi.grow(Coordinate(1, far, far), Coordinate(0, far, far)).intersect(domain)
