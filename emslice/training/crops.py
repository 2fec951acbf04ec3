"""Random crops: sample number n of a seed is the same whoever makes it, and whenever.

Nothing is remembered between samples and no global random state is used or changed, so that the
number of workers and devices, and a resume in the middle, change no batch. What is done to a crop
is in ``augment.py``.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from emslice.errors import ConfigError
from emslice.geometry.boxes import Coordinate, Roi
from emslice.training import samples
from emslice.training.augment import Augmentation, Flips, draw_flips, take
from emslice.training.samples import read_straight
from emslice.training.sources import TrainingVolume

Shape = tuple[int, int, int]


class CropDataset(Dataset[dict[str, Tensor]]):
    """Crops by number, without end.

    Each is ``raw`` float32 (Z, Y, X) in [0, 1], ``labels`` int64 (Z, Y, X) with 0 for background,
    ``valid`` bool (Z, Y, X), ``labelled`` bool.

    Parameters
    ----------
    volumes
        Drawn in proportion to their weights. They are read into memory here, if they fit.
    crop : (z, y, x) voxels
    augment
        None: crops as they lie.
    seed : int, 0 or more
    distinct
        Number n is sample n modulo this, so that what was computed of a sample can be kept.
    min_labelled
        Share of voxels that must be usable and, in a labelled volume, not background; other
        places are tried until one has it, and the best is taken if none of ``tries`` does.

    Raises
    ------
    ConfigError
        A volume is smaller than the crop, nothing has weight, or a number is out of range.
    """

    def __init__(
        self,
        volumes: Sequence[TrainingVolume],
        crop: Shape,
        augment: Augmentation | None,
        seed: int,
        distinct: int | None = None,
        *,
        min_labelled: float = 0.0,
        tries: int = 20,
    ) -> None:
        _check(volumes, crop, seed, distinct, min_labelled, tries)
        self.volumes = list(volumes)
        self.crop = crop
        self.augment = augment
        self.seed = seed
        self.distinct = distinct
        self._min_labelled, self._tries = min_labelled, tries
        weights = np.array([volume.weight for volume in volumes])
        self._shares = weights / weights.sum()
        for volume in self.volumes:
            volume.load()
        if augment is not None and augment.warps:
            samples.prepare()

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        number = index if self.distinct is None else index % self.distinct
        children = np.random.SeedSequence([self.seed, number]).spawn(2)
        where, how = (np.random.default_rng(child) for child in children)
        volume = self.volumes[where.choice(len(self.volumes), p=self._shares)]
        augment, flips = self.augment, Flips((), False)
        if augment is not None and how.random() < augment.probability:
            flips = draw_flips(augment, how, self.crop, volume.shape)
        else:
            augment = None
        box = self._place(volume, flips.before(self.crop), where)
        if augment is None:
            sample = read_straight(volume, box)
        else:
            sample = take(volume, box, flips, augment, how)
        return sample.tensors(volume.labelled)

    def _place(self, volume: TrainingVolume, shape: Shape, rng: Generator) -> Roi:
        """A random box of this shape in the volume."""
        best, most = None, -1.0
        for _ in range(self._tries if self._min_labelled > 0 else 1):
            room = np.subtract(volume.shape, shape)
            box = Roi(volume.roi.begin + Coordinate(rng.integers(room, endpoint=True)), shape)
            if self._min_labelled <= 0:
                return box
            share = _useful(volume, box)
            if share > most:
                best, most = box, share
            if share >= self._min_labelled:
                break
        assert best is not None, "there is at least one try"
        return best


def _useful(volume: TrainingVolume, box: Roi) -> float:
    """Share of the voxels that can be learnt from."""
    _, labels, usable = volume.read(box)
    return float((usable & (labels > 0)).mean() if volume.labelled else usable.mean())


@dataclass(frozen=True)
class StepBatches:
    """Sample numbers of each step's batch on one of several devices."""

    batch: int
    """Samples on each device."""

    first_step: int
    steps: int
    rank: int
    world: int

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.first_step + self.steps):
            first = (step * self.world + self.rank) * self.batch
            yield list(range(first, first + self.batch))


def make_loader(
    dataset: CropDataset,
    batch: int,
    first_step: int,
    steps: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
) -> Iterable[dict[str, Tensor]]:
    """Batches of the steps from ``first_step`` on, each a dictionary of stacked tensors.

    The batch of a step over all ``world`` devices has the samples ``step * batch * world`` and
    following; device ``rank`` gets the ``rank``-th part of them. ``workers`` processes make them,
    none of them if 0.
    """
    if batch < 1 or steps < 0 or first_step < 0 or workers < 0 or not 0 <= rank < world:
        raise ConfigError(
            f"batch {batch}, first step {first_step}, steps {steps}, workers {workers}, rank "
            f"{rank} of {world}: batch must be 1 or more, rank below world, and none negative."
        )
    return _Batches(dataset, StepBatches(batch, first_step, steps, rank, world), workers)


@dataclass(frozen=True)
class _Batches:
    """A loader that is born at each iteration, without a warning."""

    dataset: CropDataset
    numbers: StepBatches
    workers: int

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        with warnings.catch_warnings():
            # How many workers is the user's choice; a fork of a process with threads, of which
            # Python warns from 3.12 on, is safe here: workers use none of what those hold.
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            warnings.filterwarnings("ignore", ".* is multi-threaded", DeprecationWarning)
            loader = DataLoader(
                self.dataset,
                batch_sampler=self.numbers,
                num_workers=self.workers,
                multiprocessing_context=_start_method(self.dataset) if self.workers else None,
                # Without one, the loader draws from torch's global generator.
                generator=torch.Generator(),
                worker_init_fn=_ignore_signals,
            )
            return iter(loader)


def _ignore_signals(worker: int) -> None:
    """Leave it to the training to end its workers: a signal to all of a job comes to them too."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _start_method(dataset: CropDataset) -> str:
    """How workers start: forked ones share all memory, but tensorstore dies in them."""
    return "fork" if all(volume.fits for volume in dataset.volumes) else "spawn"


def _check(
    volumes: Sequence[TrainingVolume],
    crop: Shape,
    seed: int,
    distinct: int | None,
    min_labelled: float,
    tries: int,
) -> None:
    if not volumes or not sum(volume.weight for volume in volumes) > 0:
        raise ConfigError(
            f"{len(volumes)} volumes to train on, none with a weight above 0; give one."
        )
    if len(crop) != 3 or min(crop) < 1:
        raise ConfigError(f"crop {list(crop)}: expected three numbers z, y, x of 1 or more.")
    for volume in volumes:
        if any(have < want for have, want in zip(volume.shape, crop, strict=True)):
            raise ConfigError(
                f"{volume.name}: {list(volume.shape)} voxels z, y, x may be used, less than a "
                f"crop of {list(crop)}. Choose a smaller crop or leave this volume out."
            )
    if seed < 0 or (distinct is not None and distinct < 1):
        raise ConfigError(f"seed {seed}, distinct {distinct}: must be at least 0 and 1.")
    if not (0 <= min_labelled <= 1 and tries >= 1):
        raise ConfigError(
            f"min_labelled {min_labelled} is no share in [0, 1], or tries {tries} is below 1."
        )
