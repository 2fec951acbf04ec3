"""Predict in a run of blocks: each tile of each run of sections is a task with a volume of its own.

Tiles follow the lattice of the network, not the blocks, and no voxel is ever predicted at another
place of another tile. A later stage reads what it needs from the tiles that own it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.engine.stage import Resource
from emslice.geometry.boxes import Roi, clip, cut, within
from emslice.geometry.lattice import Z_RUN, TileLattice
from emslice.ops.affinity import quantise_array
from emslice.stages.holes import INPUTS, Holes, digest_of
from emslice.stages.intensity import Intensity
from emslice.stages.layout import Frame, index_of, key_of
from emslice.volumes import Volume, create_volume, open_volume
from emslice.volumes.digest import digest_array


@dataclass(frozen=True)
class TileSet:
    """The tiles that a box touches: their names, boxes and folders."""

    frame: Frame
    lattice: TileLattice
    folder: str

    def keys(self) -> Iterator[str]:
        """Name of every tile task, in order of sections."""
        yield from self.meeting(self.frame.box)

    def meeting(self, box: Roi) -> Iterator[str]:
        """Names of the tiles that own a part of a box."""
        axis_y, axis_x = self.lattice.axes
        spans = [
            [
                i
                for i, span in enumerate(axis.spans())
                if axis.answer(span)[0] < box.end[d] and axis.answer(span)[1] > box.begin[d]
            ]
            for d, axis in ((1, axis_y), (2, axis_x))
        ]
        for z in range(int(box.begin[0]) // Z_RUN, (int(box.end[0]) - 1) // Z_RUN + 1):
            for y in spans[0]:
                yield from (key_of((z, y, x)) for x in spans[1])

    def box(self, key: str) -> Roi:
        """What a tile answers for, inside the run's box."""
        z, y, x = index_of(key)
        axis_y, axis_x = self.lattice.axes
        (y0, y1), (x0, x1) = axis_y.answer(axis_y.spans()[y]), axis_x.answer(axis_x.spans()[x])
        return clip(Roi((z * Z_RUN, y0, x0), (Z_RUN, y1 - y0, x1 - x0)), self.frame.box)

    def path(self, key: str) -> Path:
        """Volume of a tile."""
        return Path(self.folder) / "tiles" / f"{key}.zarr"


class TiledAffinities:
    """Codes of any box of a run, read from its tiles; 0 where a tile is missing."""

    def __init__(self, tiles: TileSet, missing: Collection[str] = ()) -> None:
        self._tiles, self._missing = tiles, missing
        self._open: dict[str, Volume] = {}

    def read(self, box: Roi) -> NDArray[np.uint8]:
        """Codes, shape (3, Z, Y, X)."""
        codes = np.zeros((3, *(int(n) for n in box.shape)), np.uint8)
        for key in self._tiles.meeting(box):
            if key in self._missing:
                continue
            if key not in self._open:
                self._open[key] = open_volume(self._tiles.path(key))
            shared = clip(self._tiles.box(key), box)
            codes[(slice(None), *within(shared, box))] = self._open[key].read(shared)
        return codes


class StoredAffinities:
    """Codes of any box of stored affinities."""

    def __init__(self, url: str) -> None:
        self._url = url

    @cached_property
    def _volume(self) -> Volume:
        return open_volume(self._url)

    def read(self, box: Roi) -> NDArray[np.uint8]:
        """Codes, shape (3, Z, Y, X); floats are checked and quantised."""
        return quantise_array(self._volume.read(box), f"affinities {self._url}")


@dataclass(frozen=True)
class PredictTiles:
    """Raw to affinities, tile by tile."""

    tiles: TileSet
    raw_url: str
    checkpoint: str
    profile: dict[str, Any]
    intensity: Intensity
    fingerprint: str
    peak_bytes: int
    augment: str = "none"

    name = "predict"
    seconds_per_task = 1.0

    @property
    def resource(self) -> Resource:
        """GPU workers predict if the profile says so."""
        return "GPU" if self.profile["device"] == "cuda" else "CPU"

    @cached_property
    def n_tasks(self) -> int:
        """Tiles x runs of sections."""
        return sum(1 for _ in self.tiles.keys())  # noqa: SIM118

    def waves(self) -> Iterator[Iterable[str]]:
        yield self.tiles.keys()

    def prepare(self) -> None:
        (Path(self.tiles.folder) / "tiles").mkdir(parents=True, exist_ok=True)

    @contextmanager
    def open(self) -> Iterator[Callable[[str], dict[str, Any]]]:
        # torch is imported by workers that predict, not by all that read this module
        from emslice.models.allocator import freed_memory_kept
        from emslice.models.augment import predictor_for
        from emslice.models.checkpoint import load_checkpoint
        from emslice.models.profile import ComputeProfile, operator_threads
        from emslice.stages.predict import predict

        profile = ComputeProfile(**self.profile)
        network = load_checkpoint(self.checkpoint).network
        predictor = predictor_for(network, self.tiles.lattice, profile, self.augment)
        raw = open_volume(self.raw_url)

        def process(key: str) -> dict[str, Any]:
            box = self.tiles.box(key)
            with operator_threads(profile.threads) as set_threads:
                set_threads()
                codes = predict(raw, predictor, box, self.intensity).array
            self._store(key, box, codes)
            return {"digest": digest_array(codes), "voxels": int(codes[0].size)}

        with freed_memory_kept():
            yield process

    def _store(self, key: str, box: Roi, codes: NDArray[np.uint8]) -> None:
        path = self.tiles.path(key)
        shutil.rmtree(path, ignore_errors=True)  # of an attempt that was not recorded
        volume = create_volume(
            path,
            shape=box.shape,
            dtype="uint8",
            channels=3,
            offset=box.begin,
            domain_shape=self.tiles.frame.domain_shape,
            resolution_nm=self.tiles.frame.resolution_nm,
        )
        volume.write(box, codes)


@dataclass(frozen=True)
class KeepAffinities:
    """Tiles to one volume, ``affinities.zarr``; a task is whole layers of its chunks."""

    tiles: TileSet
    folder: str
    attributes: dict[str, Any]
    fingerprint: str
    peak_bytes: int
    holes: Holes

    name = "affinities"
    resource: Resource = field(default="CPU", init=False)
    seconds_per_task = 1.0

    @property
    def path(self) -> Path:
        """The volume."""
        return Path(self.folder) / "affinities.zarr"

    def slabs(self) -> dict[str, Roi]:
        """Box of each task."""
        box = self.tiles.frame.box
        at_zero = Roi((0, *box.begin[1:]), box.shape)  # chunks count from the volume's first voxel
        return {
            str(i): Roi((slab.begin[0] + box.begin[0], *slab.begin[1:]), slab.shape)
            for i, slab in enumerate(cut(at_zero, axis=0, step=Z_RUN))
        }

    @cached_property
    def n_tasks(self) -> int:
        """Layers of chunks."""
        return len(self.slabs())

    def waves(self) -> Iterator[Iterable[str]]:
        yield list(self.slabs())

    def prepare(self) -> None:
        if self.path.exists():
            return
        frame = self.tiles.frame
        create_volume(
            self.path,
            shape=frame.box.shape,
            dtype="uint8",
            channels=3,
            chunk_shape=(Z_RUN, 256, 256),
            offset=frame.box.begin,
            domain_shape=frame.domain_shape,
            resolution_nm=frame.resolution_nm,
            attributes=self.attributes,
        )

    @contextmanager
    def open(self) -> Iterator[Callable[[str], dict[str, Any]]]:
        affinities, slabs = TiledAffinities(self.tiles, self.holes.tiles), self.slabs()
        volume = open_volume(self.path, writable=True)

        def process(key: str) -> dict[str, Any]:
            volume.write(slabs[key], affinities.read(slabs[key]))
            return {INPUTS: self._missing_in(slabs[key])}

        yield process

    def expected(self) -> Iterator[tuple[str, str]]:
        """What the record of each task must say that it read."""
        for key, slab in self.slabs().items():
            yield key, self._missing_in(slab)

    def _missing_in(self, slab: Roi) -> str:
        missing = sorted(self.holes.tiles.intersection(self.tiles.meeting(slab)))
        return digest_of(*missing) if missing else ""
