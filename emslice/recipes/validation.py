"""The held-out volume, segmented by the real pipeline with the present weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from emslice.config.schema import AgglomerationConfig, DustConfig
from emslice.config.training import ValidateConfig
from emslice.errors import ConfigError
from emslice.geometry.lattice import Lattice
from emslice.models.checkpoint import save_checkpoint
from emslice.models.networks import Network
from emslice.models.predictor import facts_of, make_predictor
from emslice.models.profile import resolve_profile
from emslice.ops.lookup import GreyLevel
from emslice.stages.predict import predict
from emslice.stages.scoring import score_affinities
from emslice.training.loop import CHOSEN
from emslice.training.sources import TrainingVolume
from emslice.volumes import ArrayVolume

THRESHOLDS = tuple(round(0.2 + 0.025 * n, 3) for n in range(31))
"""0.2 to 0.95."""

Anything = TypeVar("Anything")

DEFAULT = AgglomerationConfig().threshold
MEASURES = ("threshold", "voi", "voi_split", "voi_merge", "arand")


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


class Truth(NamedTuple):
    """A held-out volume."""

    raw: NDArray[np.uint8]
    """Shape (Z, Y, X)."""
    labels: NDArray[np.int32]
    """The same shape; 0 is not scored."""
    lattice: Lattice
    """On which the network predicts it."""


class HeldOut:
    """Scores of a network on volumes that it is not trained on, and the file of its best weights.

    Parameters
    ----------
    volumes : sequence of TrainingVolume
        Labelled; scores are the mean over them.

    Raises
    ------
    ConfigError
        Sizes that the network cannot take, a precision that this machine has not, nothing to score.
    """

    def __init__(
        self,
        product: Product,
        volumes: Sequence[TrainingVolume],
        config: ValidateConfig,
        workers: int = 1,
    ) -> None:
        self._product, self._config, self._workers = product, config, workers
        self.path: Path | None = None
        """Of the best checkpoint."""
        self._profile = self._checked(
            lambda: resolve_profile("cpu", config.tile, 1, config.precision)
        )
        self._truths = [self._read(volume) for volume in volumes]
        self.shown: tuple[NDArray[Any], ...] | None = None
        """Of the last call, the first volume's middle section: raw, affinities, labels of the
        section before and of itself."""

    def _read(self, volume: TrainingVolume) -> Truth:
        config = self._config
        raw, labels, usable = volume.read(volume.roi)
        labels = np.where(usable, labels, 0)
        if not labels.any():
            raise ConfigError(
                f"{volume.name}: all labels are 0; without truth there are no scores."
            )
        facts = self._checked(
            lambda: facts_of(
                self._product.network, volume.shape, config.tile, config.crop, config.stride
            )
        )
        return Truth(raw, labels, facts.lattice)

    @staticmethod
    def _checked(make: Callable[[], Anything]) -> Anything:
        """What is made; errors name the keys of a training, not those of a segmentation."""
        try:
            return make()
        except ConfigError as error:
            raise ConfigError(str(error).replace("predict.", "validation.")) from error

    def __call__(self, step: int) -> dict[str, float]:
        """Scores at the default and at the best threshold."""
        network = copy.deepcopy(self._product.network).cpu().eval()
        found = [self._score(network, truth, k == 0) for k, truth in enumerate(self._truths)]
        rows = [_mean(rows) for rows in zip(*found, strict=True)]
        default = next(row for row in rows if row["threshold"] == DEFAULT)
        best = min(rows, key=lambda row: row["voi"])
        values = {CHOSEN: (best if self._config.choose == "best" else default)["voi"]}
        for name, row in (("default", default), ("best", best)):
            values |= {f"{name}_{key}": value for key, value in row.items()}
        return values

    def _score(self, network: Network, truth: Truth, first: bool) -> list[dict[str, float]]:
        """Scores of one volume at every threshold."""
        predictor = make_predictor(network, truth.lattice, self._profile)
        volume = ArrayVolume(truth.raw)
        codes = predict(volume, predictor, volume.roi, workers=self._workers).array
        if first:
            middle = len(truth.raw) // 2
            self.shown = (
                truth.raw[middle],
                codes[:, middle],
                truth.labels[middle - 1 : middle + 1],
            )
        scores = score_affinities(
            codes, truth.labels, THRESHOLDS, DEFAULT, min_size=DustConfig().min_size,
            workers=self._workers,
        )  # fmt: skip
        return [{key: float(getattr(row, key)) for key in MEASURES} for row in scores.rows]

    def keep(self, step: int, scores: Mapping[str, float]) -> None:
        """Write the present weights as the best ones."""
        assert self.path is not None
        self._product.write(self.path, {"step": step, "validation": dict(scores)})


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: sum(row[key] for row in rows) / len(rows) for key in MEASURES}
