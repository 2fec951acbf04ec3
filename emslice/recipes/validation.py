"""The held-out volume, segmented by the real pipeline with the present weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.config.training import ValidateConfig
from emslice.metrics import SweepRow, score_cuts
from emslice.models.checkpoint import save_checkpoint
from emslice.models.networks import Network
from emslice.models.predictor import facts_of, make_predictor
from emslice.models.profile import resolve_profile
from emslice.ops.cuts import cut_affinities
from emslice.ops.dust import DustRule
from emslice.ops.lookup import GreyLevel
from emslice.stages.predict import predict
from emslice.training.loop import CHOSEN
from emslice.training.sources import TrainingVolume
from emslice.volumes import ArrayVolume

THRESHOLDS = tuple(round(0.2 + 0.025 * n, 3) for n in range(31))
"""0.2 to 0.95."""

DEFAULT = 0.5
DUST = 100
"""Voxels, the default of a segmentation."""


@dataclass(frozen=True)
class Scored:
    """What a validation found."""

    codes: NDArray[np.uint8]
    """Affinities, shape (3, Z, Y, X)."""
    default: SweepRow
    best: SweepRow


@dataclass(frozen=True)
class Product:
    """The network that a training is for, and what its files say of it."""

    network: Network
    resolution_nm: tuple[float, float, float]
    facts: Mapping[str, Any]
    intensity: GreyLevel

    def write(self, path: Path, more: Mapping[str, Any]) -> None:
        """Write the present weights as a checkpoint for `emslice segment`."""
        facts = {**self.facts, **more}
        save_checkpoint(path, self.network, self.resolution_nm, facts, intensity=self.intensity)


class HeldOut:
    """Scores of a network on a volume that it is not trained on, and the file of its best weights.

    Parameters
    ----------
    volume : TrainingVolume
        Labelled.
    path : Path
        Of the best checkpoint.
    """

    def __init__(
        self,
        product: Product,
        volume: TrainingVolume,
        config: ValidateConfig,
        path: Path,
        workers: int = 1,
    ) -> None:
        self._product, self._config, self._path = product, config, path
        self._workers = workers
        self.raw, labels, usable = volume.read(volume.roi)
        self.truth = np.where(usable, labels, 0)
        self._lattice = facts_of(
            product.network, volume.shape, config.tile, config.crop, config.stride
        ).lattice
        self.last: Scored | None = None

    def __call__(self, step: int) -> dict[str, float]:
        """Scores at the default and at the best threshold; the last are in `last`."""
        self.last = found = self.score()
        chosen = found.best if self._config.choose == "best" else found.default
        values = {CHOSEN: chosen.voi}
        for name, row in (("default", found.default), ("best", found.best)):
            wanted = ("voi", "voi_split", "voi_merge", "arand", "threshold")
            values |= {f"{key}_{name}": float(getattr(row, key)) for key in wanted}
        return values

    def score(self) -> Scored:
        """Affinities of the volume by the present weights, cut at many thresholds."""
        network = copy.deepcopy(self._product.network).cpu().eval()
        profile = resolve_profile("cpu", self._config.tile, 1, self._config.precision)
        predictor = make_predictor(network, self._lattice, profile)
        volume = ArrayVolume(self.raw)
        codes = predict(volume, predictor, volume.roi, workers=self._workers).array
        cuts = cut_affinities(codes, THRESHOLDS, dust=DustRule(DUST), workers=self._workers)
        scores = score_cuts(cuts.labels, cuts.segments, self.truth, DEFAULT)
        return Scored(codes, scores.default, scores.best)

    def keep(self, step: int, scores: Mapping[str, float]) -> None:
        """Write the present weights as the best ones."""
        self._product.write(self._path, {"step": step, "validation": dict(scores)})
