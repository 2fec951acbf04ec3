"""Predict in a run of blocks: each tile of each run of sections is a task with a file of its own.

Tiles follow the lattice of the network, not the blocks, and no voxel is ever predicted at another
place of another tile. A later stage reads what it needs from the tiles that own it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.engine.stage import Resource
from emslice.errors import StorageError
from emslice.geometry.boxes import Roi, clip, cut, within
from emslice.geometry.lattice import Z_RUN, Lattice
from emslice.ledger.files import write_aside
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
    lattice: Lattice
    folder: str

    def keys(self) -> Iterator[str]:
        """Name of every tile task, in order of sections."""
        yield from self.meeting(self.frame.box)

    def meeting(self, box: Roi) -> Iterator[str]:
        """Names of the tiles that own a part of a box."""
        yield from map(key_of, self.lattice.meeting(box))

    def box(self, key: str) -> Roi:
        """What a tile answers for, inside the run's box."""
        return clip(self.lattice.owned(index_of(key)), self.frame.box)

    def path(self, key: str) -> Path:
        """File of a tile."""
        return Path(self.folder) / "tiles" / f"{key}.npy"

    def write(self, key: str, codes: NDArray[np.uint8]) -> None:
        """Store the codes of a tile, shape (3, Z, Y, X); they are flushed when this returns.

        As they are: they are read once, and compression alone takes twenty times as long.
        """
        with write_aside(self.path(key)) as partial, partial.open("wb") as file:
            np.save(file, np.ascontiguousarray(codes))

    def read(self, key: str, box: Roi) -> NDArray[np.uint8]:
        """Codes of a part of a tile, shape (3, Z, Y, X).

        Raises
        ------
        StorageError
            The file is missing or damaged.
        """
        path = self.path(key)
        try:
            codes: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise StorageError(f"{path}: not a readable tile: {error}") from error
        return codes[(slice(None), *within(box, self.box(key)))]

    def delete(self, key: str) -> None:
        """Remove a tile, if it is there."""
        self.path(key).unlink(missing_ok=True)


class TiledAffinities:
    """Codes of any box of a run, read from its tiles; 0 where a tile is missing."""

    def __init__(self, tiles: TileSet, missing: Collection[str] = ()) -> None:
        self._tiles, self._missing = tiles, missing

    def read(self, box: Roi) -> NDArray[np.uint8]:
        """Codes, shape (3, Z, Y, X)."""
        codes = np.zeros((3, *(int(n) for n in box.shape)), np.uint8)
        for key in self._tiles.meeting(box):
            if key in self._missing:
                continue
            shared = clip(self._tiles.box(key), box)
            codes[(slice(None), *within(shared, box))] = self._tiles.read(key, shared)
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
        from emslice.models.checkpoint import load_checkpoint
        from emslice.models.predictor import make_predictor
        from emslice.models.profile import ComputeProfile, check_worker, operator_threads
        from emslice.stages.predict import predict

        profile = ComputeProfile(**self.profile)
        check_worker(profile)
        network = load_checkpoint(self.checkpoint).network
        predictor = make_predictor(network, self.tiles.lattice, profile, self.augment)
        raw = open_volume(self.raw_url)

        def process(key: str) -> dict[str, Any]:
            box = self.tiles.box(key)
            with operator_threads(profile.threads) as set_threads:
                set_threads()
                codes = predict(raw, predictor, box, self.intensity).array
            self.tiles.write(key, codes)
            return {"digest": digest_array(codes), "voxels": int(codes[0].size)}

        with freed_memory_kept():
            yield process


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
