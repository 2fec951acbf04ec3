"""A training as a folder: begun, gone on with, looked at.

``training.yaml`` and ``config.yaml`` say what is trained, ``state.pt`` how far it is,
``metrics.csv`` how it went; ``best.ckpt`` and ``last.ckpt`` are what `emslice segment` takes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only

import emslice
from emslice.config.load import load_as
from emslice.config.training import TrainConfig
from emslice.errors import ConfigError, EmsliceError
from emslice.geometry.boxes import Roi
from emslice.models.networks import count_parameters
from emslice.ops.lookup import GreyLevel
from emslice.recipes.building import (
    RECIPES,
    make_batches,
    make_crops,
    make_fabric,
    make_lesson,
    make_optimiser,
    resolution_of,
)
from emslice.recipes.card import write_card
from emslice.recipes.datasets import Volumes, open_volumes
from emslice.recipes.lesson import Lesson
from emslice.recipes.records import BEST, LAST, read_record, write_record
from emslice.recipes.validation import HeldOut, Product
from emslice.training import metrics
from emslice.training.crops import CropDataset
from emslice.training.loop import Interrupted, Loop, LoopPlan
from emslice.training.schedule import Schedule
from emslice.training.sources import TrainingVolume
from emslice.training.state import State, locked
from emslice.viewer.training import affinity_panels, draw_training_curves

MEASURED_SECTIONS = 64
"""Of a volume, spread over it, whose grey values are measured."""

Advance = Callable[[int], None]


class StoppedError(EmsliceError):
    """A training was asked to stop, and did after a step that is saved."""

    exit_code = 1


@dataclass(frozen=True)
class Trained:
    """A training that is done."""

    folder: Path
    steps: int
    best: float
    """VOI in bits of the step that was chosen; infinite without validation."""
    best_step: int | None


def start(
    recipe: str, config: TrainConfig, folder: str | Path, watch: Callable[[int, int], Advance]
) -> Trained:
    """Train until ``config.steps`` in a new folder.

    Parameters
    ----------
    recipe : one of `RECIPES`
    watch : callable
        Given steps done and steps in all, gives what is called with 1 after each step.

    Raises
    ------
    ConfigError
        Bad input; nothing was written.
    StoppedError
        SIGINT or SIGTERM came; `resume` goes on.
    """
    folder = Path(folder)
    if recipe not in RECIPES:
        raise ConfigError(f"recipe: {recipe!r} is none of {', '.join(RECIPES)}.")
    ready = _Ready.of(recipe, config)
    if is_first_process():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"--out {folder}: already exists. Choose another name, remove it, or go on with "
                f"it: emslice train resume {folder}"
            )
        write_record(folder, ready.record())
    return ready.train(folder, watch)


def resume(folder: str | Path, watch: Callable[[int, int], Advance]) -> Trained:
    """Go on with a training that was stopped or died.

    Raises
    ------
    ConfigError
        No training is there, or its data are others by now.
    """
    folder = Path(folder)
    record = read_record(folder)
    ready = _Ready.of(record["recipe"], load_as(TrainConfig, base=record["config"]))
    found = ready.record()["first_crops"]
    if found != record["first_crops"]:
        raise ConfigError(
            f"{folder}: its first crops are others now ({found}, were {record['first_crops']}): "
            f"the volumes or the libraries that augment them changed. Train anew."
        )
    return ready.train(folder, watch)


@dataclass
class _Ready:
    """A training whose input is checked."""

    recipe: str
    config: TrainConfig
    fabric: Any
    volumes: Volumes
    lesson: Lesson
    crops: dict[str, CropDataset]
    resolution_nm: tuple[float, float, float]

    @classmethod
    def of(cls, recipe: str, config: TrainConfig) -> _Ready:
        """Everything that can be wrong is found here."""
        fabric = make_fabric(config)
        torch.set_num_threads(n_threads(config))
        volumes = open_volumes(config.data)
        resolution = resolution_of(volumes.train, config)
        lesson = make_lesson(recipe, config)
        crops = make_crops(config, lesson.needs, volumes.train)
        return cls(recipe, config, fabric, volumes, lesson, crops, resolution)

    def record(self) -> dict[str, Any]:
        """What identifies the training."""
        return {
            "recipe": self.recipe,
            "emslice": emslice.__version__,
            "torch": str(torch.__version__),
            "parameters": count_parameters(getattr(self.lesson, self.lesson.product)),
            "first_crops": {kind: _digest(dataset) for kind, dataset in self.crops.items()},
            "config": self.config.model_dump(mode="json"),
        }

    def train(self, folder: Path, watch: Callable[[int, int], Advance]) -> Trained:
        """Do the steps that are left."""
        self.fabric.launch()
        with self._alone(folder):
            optimiser, ratios = make_optimiser(self.config, self.lesson)
            validation = self._validation(folder)
            loop = Loop(
                self.fabric, self.lesson, optimiser, ratios, self._schedule(), self._plan(), folder,
                validation,
            )  # fmt: skip
            advance = watch(loop.state.step, self.config.steps)
            try:
                state = loop.run(
                    lambda step: make_batches(self.config, self.crops, self.fabric, step), advance
                )
            except Interrupted:
                raise StoppedError(
                    f"{folder}: stopped after step {loop.state.step} of {self.config.steps}, which "
                    f"is saved. Go on: emslice train resume {folder}"
                ) from None
            return self._finish(folder, state, validation)

    @contextmanager
    def _alone(self, folder: Path) -> Iterator[None]:
        if not self.fabric.is_global_zero:
            yield
            return
        with locked(folder):
            yield

    def _finish(self, folder: Path, state: State, validation: HeldOut | None) -> Trained:
        trained = Trained(folder, state.step, state.best, state.best_step)
        if self.fabric.is_global_zero:
            product = self._product()
            product.write(folder / LAST, {"step": state.step})
            if state.best_step is None:
                product.write(folder / BEST, {"step": state.step})
            draw_training_curves(folder / metrics.NAME, folder / "curves.png")
            if validation is not None and validation.shown is not None:
                raw, codes, (before, here) = validation.shown
                affinity_panels(raw, codes, here, folder / "validation.png", before)
            write_card(folder)
        return trained

    def _product(self) -> Product:
        network = getattr(self.lesson, self.lesson.product)
        facts = {key: value for key, value in self.record().items() if key != "parameters"}
        return Product(network, self.resolution_nm, facts, grey_level(self.volumes.train))

    def _validation(self, folder: Path) -> HeldOut | None:
        if not self.volumes.validate or not self.fabric.is_global_zero:
            return None
        return HeldOut(
            self._product(), self.volumes.validate, self.config.validation, folder / BEST,
            n_threads(self.config),
        )  # fmt: skip

    def _schedule(self) -> Schedule:
        o = self.config.optimiser
        return Schedule(o.schedule, o.rate, o.end_rate, self.config.steps, o.warmup, o.power)

    def _plan(self) -> LoopPlan:
        config, validation = self.config, self.config.validation
        return LoopPlan(
            config.steps, config.save_every, config.log_every, validation.every, validation.start,
            config.optimiser.clip,
        )  # fmt: skip


def is_first_process() -> bool:
    """Whether this is the process that was called; Fabric starts the others by the same command."""
    # Not fabric.is_global_zero: before launch() every process takes itself for the first.
    return not (getattr(rank_zero_only, "rank", 0) or 0)


def n_threads(config: TrainConfig) -> int:
    """Threads of one process."""
    return config.threads or max(1, (os.cpu_count() or 1) // config.devices)


def _digest(dataset: CropDataset) -> str:
    """Of the first crop: changes with the data, the configuration and what augments."""
    digest = hashlib.sha256()
    for name, value in sorted(dataset[0].items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()[:16]


def grey_level(volumes: list[TrainingVolume]) -> GreyLevel:
    """Mean and deviation of the raw of volumes, of sections spread over each; 0 is left out."""
    counts = np.zeros(256, np.int64)
    for volume in volumes:
        (z, y, x), (depth, height, width) = volume.roi.begin, volume.roi.shape
        for k in np.unique(np.linspace(0, depth - 1, MEASURED_SECTIONS).astype(int)):
            raw = volume.read(Roi((z + int(k), y, x), (1, height, width))).raw
            counts += np.bincount(raw.ravel(), minlength=256)
    counts[0] = 0
    values, n = np.arange(256), max(1, counts.sum())
    mean = float((counts * values).sum() / n)
    variance = float((counts * (values - mean) ** 2).sum() / n)
    return GreyLevel(mean, max(variance**0.5, 1.0))
