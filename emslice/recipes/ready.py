"""A training whose input was checked, and how it is done."""

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
from lightning_fabric import Fabric

import emslice
from emslice.config.training import TrainConfig
from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi
from emslice.ops.lookup import GreyLevel, level_of
from emslice.recipes.building import (
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
from emslice.recipes.records import BEST, LAST
from emslice.recipes.validation import HeldOut, Product
from emslice.training import metrics
from emslice.training.crops import CropDataset
from emslice.training.loop import Advance, Loop, LoopPlan
from emslice.training.schedule import Schedule
from emslice.training.sources import TrainingVolume
from emslice.training.state import State, locked
from emslice.viewer.training import affinity_panels, draw_training_curves

MEASURED_SECTIONS = 64
"""Of a volume, spread over it, whose grey values are measured."""


@dataclass(frozen=True)
class Trained:
    """A training that is done."""

    folder: Path
    steps: int
    best: float
    """VOI in bits of the step that was chosen; infinite without validation."""
    best_step: int | None


@dataclass
class Ready:
    """A training, everything of it checked, nothing written."""

    config: TrainConfig
    fabric: Fabric
    lesson: Lesson
    crops: dict[str, CropDataset]
    product: Product
    record: dict[str, Any]
    """What identifies the training."""
    held_out: HeldOut | None

    @classmethod
    def of(cls, recipe: str, config: TrainConfig) -> Ready:
        """Everything that can be wrong is found here."""
        fabric = make_fabric(config)
        torch.set_num_threads(n_threads(config))
        volumes = open_volumes(config.data)
        resolution = resolution_of(volumes.train, config)
        lesson, files = make_lesson(recipe, config)
        _check_labels(recipe, config, volumes)
        crops = make_crops(config, lesson.needs, volumes.train)
        record = {
            "recipe": recipe,
            "emslice": emslice.__version__,
            "torch": str(torch.__version__),
            "first_crops": {kind: _digest(dataset) for kind, dataset in crops.items()},
            "weights": files,
            "config": config.model_dump(mode="json"),
        }
        network = getattr(lesson, lesson.product)
        product = Product(network, resolution, record, grey_level(volumes.train))
        held_out = None
        if volumes.validate:
            held_out = HeldOut(product, volumes.validate, config.validation, n_threads(config))
        return cls(config, fabric, lesson, crops, product, record, held_out)

    def train(self, folder: Path, watch: Callable[[int, int], Advance]) -> Trained:
        """Do the steps that are left.

        Raises
        ------
        StoppedError
            SIGINT or SIGTERM came; the state is saved.
        """
        self.fabric.launch()
        with self._alone(folder):
            if self.held_out is not None:
                self.held_out.path = folder / BEST
            optimiser, ratios = make_optimiser(self.config, self.lesson)
            loop = Loop(
                self.fabric, self.lesson, optimiser, ratios, self._schedule(), self._plan(), folder,
                self.held_out,
            )  # fmt: skip
            advance = watch(loop.state.step, self.config.steps)
            state = loop.run(
                lambda step: make_batches(self.config, self.crops, self.fabric, step), advance
            )
            return self._finish(folder, state)

    @contextmanager
    def _alone(self, folder: Path) -> Iterator[None]:
        """The folder's lock, for the first process; what dead ones left half written is removed."""
        if not self.fabric.is_global_zero:
            yield
            return
        with locked(folder):
            for path in folder.glob(".*.partial"):
                path.unlink()
            yield

    def _finish(self, folder: Path, state: State) -> Trained:
        trained = Trained(folder, state.step, state.best, state.best_step)
        if not self.fabric.is_global_zero:
            return trained
        if state.best_step is None:
            self.product.write(folder / BEST, {"step": state.step})
        draw_training_curves(folder / metrics.NAME, folder / "curves.png")
        if self.held_out is not None and self.held_out.shown is not None:
            raw, codes, (before, here) = self.held_out.shown
            affinity_panels(raw, codes, here, folder / "validation.png", before)
        self.product.write(folder / LAST, {"step": state.step})
        write_card(folder)
        return trained

    def _schedule(self) -> Schedule:
        o = self.config.optimiser
        return Schedule(o.schedule, o.rate, o.end_rate, self.config.steps, o.warmup, o.power)

    def _plan(self) -> LoopPlan:
        config, validation = self.config, self.config.validation
        return LoopPlan(
            config.steps, config.save_every, config.log_every, validation.every, validation.start,
            config.optimiser.clip,
        )  # fmt: skip


def _check_labels(recipe: str, config: TrainConfig, volumes: Volumes) -> None:
    """Somebody has to say what is right: labels, or a teacher that is frozen."""
    taught = recipe in ("cad", "cad_iad") and config.teacher.frozen
    if not taught and not any(volume.labelled for volume in volumes.train):
        raise ConfigError(
            f"data.train: no volume has labels, and {recipe} learns from them. Name some, or train "
            f"cad with a frozen teacher."
        )


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
    level = level_of(counts) or GreyLevel(0.0, 0.0)
    return GreyLevel(level.mean, max(level.std, 1.0))
