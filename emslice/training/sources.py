"""The volumes that crops are cut from: raw, perhaps labels, perhaps a mask, of any format.

Opening checks everything and reads no voxel. A volume that fits is then read into memory once,
as torch tensors, which worker processes share; a larger one is read crop by crop. What a crop is
and where it lies is in ``crops.py``.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from emslice.errors import ConfigError, VolumeError
from emslice.geometry.boxes import Roi, n_voxels, parse_roi, show, within
from emslice.ops.intensity import check_window, to_uint8
from emslice.training.arrays import ArrayFacts, facts_of, find_array, slabs_of
from emslice.training.compact import Compactor, compact
from emslice.volumes.places import import_command
from emslice.volumes.resolutions import check_resolution

MEMORY_BYTES = 2 << 30
"""A volume that takes no more than this is read into memory."""


@dataclass(frozen=True)
class VolumeSpec:
    """What the user says of one volume to train on."""

    raw: str
    """Folder of a volume, ``file.h5:dataset``, TIFF stack, folder of images or ``.npy``."""

    labels: str | None
    """Integers, 0 or less is background; None if there are none."""

    mask: str | None
    """Integers or booleans, 0 where voxels must not be used."""

    sections: tuple[int, int] | None
    """Half-open range along z that is used."""

    roi: str | None
    """``z0:z1,y0:y1,x0:x1``, instead of sections."""

    weight: float
    """How often this volume is drawn, relative to the others."""

    window: tuple[int, int] | None
    """Grey values of uint16 raw that become black and white."""


class Voxels(NamedTuple):
    """A box of a training volume; the arrays are the caller's own."""

    raw: NDArray[np.uint8]
    """Shape (Z, Y, X)."""

    labels: NDArray[np.int32]
    """Shape (Z, Y, X); equal where equal ids are stored, small, 0 is background."""

    usable: NDArray[np.bool_]
    """Shape (Z, Y, X); False where the mask is 0."""


class TrainingVolume:
    """A checked volume; `open` and `from_arrays` make them."""

    def __init__(
        self,
        name: str,
        parts: dict[str, ArrayFacts],
        roi: Roi,
        weight: float = 1.0,
        window: tuple[int, int] | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.name = name
        """What errors call it: the place in the configuration."""
        self.roi = roi
        """What may be used, in voxels of the raw volume; nothing beyond is ever read."""
        self.weight = weight
        self._parts = parts
        self._window = window
        self._memory: dict[str, torch.Tensor] = {}
        self.fits = self._bytes() <= memory_bytes
        """Whether it is read into memory as a whole."""

    @classmethod
    def open(cls, spec: VolumeSpec, key: str, memory_bytes: int = MEMORY_BYTES) -> TrainingVolume:
        """The volume that a specification names; no voxel is read but to see that it decodes.

        Raises
        ------
        ConfigError
            ``key`` with what is missing, unreadable, of the wrong kind or shape, or too large for
            a file that is not chunked.
        """
        parts = {"raw": find_array(spec.raw, f"{key}.raw")}
        for name, text in (("labels", spec.labels), ("mask", spec.mask)):
            if text is not None:
                parts[name] = find_array(text, f"{key}.{name}")
        _check_kinds(parts, spec.window, key)
        _check_same_place(parts, key)
        if not (math.isfinite(spec.weight) and spec.weight >= 0):
            raise ConfigError(f"{key}.weight: {spec.weight} is no share; give a number from 0 up.")
        roi = _choose_roi(spec, parts["raw"], key)
        volume = cls(key, parts, roi, spec.weight, spec.window, memory_bytes)
        volume._refuse_large_files(memory_bytes)
        return volume

    @classmethod
    def from_arrays(
        cls,
        raw: NDArray[Any],
        labels: NDArray[Any] | None = None,
        mask: NDArray[Any] | None = None,
        *,
        weight: float = 1.0,
        window: tuple[int, int] | None = None,
        name: str = "array",
    ) -> TrainingVolume:
        """A volume around arrays of shape (Z, Y, X), for notebooks and tests."""
        given = {"raw": raw, "labels": labels, "mask": mask}
        parts = {
            part: facts_of(array, f"{name}.{part}")
            for part, array in given.items()
            if array is not None
        }
        _check_kinds(parts, window, name)
        _check_same_place(parts, name)
        return cls(name, parts, parts["raw"].roi, weight, window, sys.maxsize)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels z, y, x of what may be used."""
        z, y, x = (int(n) for n in self.roi.shape)
        return z, y, x

    @property
    def resolution_nm(self) -> tuple[float, float, float] | None:
        """Nanometres per voxel, z, y, x; None if raw does not state it."""
        return self._parts["raw"].resolution_nm

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return "labels" in self._parts

    def load(self) -> None:
        """Read everything into memory if it fits; once, whoever calls."""
        if not self.fits or self._memory:
            return
        self._memory = {name: self._loaded(name) for name in self._parts}

    def read(self, box: Roi) -> Voxels:
        """Voxels of a box within `roi`."""
        self.load()
        where = within(box, self.roi)
        shape = tuple(int(n) for n in box.shape)
        raw = self._read("raw", box, where)
        labels = np.zeros(shape, np.int32)
        if self.labelled:
            labels = self._read("labels", box, where)
        usable = np.ones(shape, np.bool_)
        if "mask" in self._parts:
            usable = self._read("mask", box, where)
        return Voxels(raw, labels, usable)

    def _read(self, name: str, box: Roi, where: tuple[slice, ...]) -> NDArray[Any]:
        if self._memory:
            return self._memory[name][where].numpy().copy()
        volume = self._parts[name].volume
        assert volume is not None, "files are always in memory"
        array = volume.read(box)
        return compact(array) if name == "labels" else self._converted(name, array)

    def _converted(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        return to_uint8(array, self._window) if name == "raw" else array != 0

    def _loaded(self, name: str) -> torch.Tensor:
        """A whole part; never more than the result and one slab at a time."""
        dtype = {"raw": torch.uint8, "labels": torch.int32, "mask": torch.bool}[name]
        whole = torch.empty(self.shape, dtype=dtype)
        array, ids = whole.numpy(), Compactor()
        for z, slab in slabs_of(self._parts[name], self.roi):
            array[z] = ids(slab) if name == "labels" else self._converted(name, slab)
        return whole

    def _bytes(self) -> int:
        each = {"raw": 1, "labels": 4, "mask": 1}
        return n_voxels(self.roi) * sum(each[name] for name in self._parts)

    def _refuse_large_files(self, memory_bytes: int) -> None:
        for name, part in self._parts.items():
            if not self.fits and part.volume is None:
                raise VolumeError(
                    f"{self.name}.{name}: {part.text} with its {show(self.roi)} takes "
                    f"{self._bytes() / 2**30:.1f} GiB, more than the {memory_bytes / 2**30:.1f} "
                    f"GiB that are kept in memory, and only volumes are read crop by crop. Import "
                    f"it first: {import_command(part.text)}"
                )


def _check_kinds(parts: dict[str, ArrayFacts], window: tuple[int, int] | None, key: str) -> None:
    raw = parts["raw"].dtype
    if raw == np.uint16 and window is None:
        raise ConfigError(
            f"{key}.window: {parts['raw'].text} is uint16. Choose the values that become black "
            f"and white, e.g. [0, 65535]."
        )
    try:
        check_window(raw, window)
    except ConfigError as error:
        raise ConfigError(f"{key}.raw: {parts['raw'].text}: {error}") from error
    for name, kinds, wanted in (
        ("labels", "ui", "integers, one number for each object"),
        ("mask", "bui", "integers or booleans, not 0 where voxels are used"),
    ):
        part = parts.get(name)
        if part is not None and part.dtype.kind not in kinds:
            raise VolumeError(f"{key}.{name}: {part.text} holds {part.dtype}; expected {wanted}.")


def _check_same_place(parts: dict[str, ArrayFacts], key: str) -> None:
    """Raise unless labels and mask are of the voxels of raw."""
    raw = parts["raw"]
    for name, part in parts.items():
        if part.roi != raw.roi:
            raise VolumeError(
                f"{key}.{name}: {part.text} spans {show(part.roi)}, and raw {raw.text} spans "
                f"{show(raw.roi)}. They must have the same voxels."
            )
        check_resolution(
            f"{key}.{name}: {part.text}", part.resolution_nm, f"raw {raw.text}", raw.resolution_nm
        )


def _choose_roi(spec: VolumeSpec, raw: ArrayFacts, key: str) -> Roi:
    if spec.sections is not None and spec.roi is not None:
        raise ConfigError(f"{key}: has sections {spec.sections} and roi {spec.roi}; give one.")
    if spec.roi is not None:
        return parse_roi(spec.roi, raw.roi, f"{key}.roi")
    if spec.sections is None:
        return raw.roi
    first, end = spec.sections
    begin, stop = int(raw.roi.begin[0]), int(raw.roi.end[0])
    if not begin <= first < end <= stop:
        raise ConfigError(
            f"{key}.sections: [{first}, {end}) asked, and {raw.text} has sections "
            f"[{begin}, {stop}). Choose a rising pair within them."
        )
    _, y, x = (int(n) for n in raw.roi.shape)
    return Roi((first, *raw.roi.begin[1:]), (end - first, y, x))
