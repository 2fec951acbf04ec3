"""How a run normalises raw, and which part of the volume it must measure for that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from emslice.config.schema import PredictConfig, RawConfig
from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi, show
from emslice.geometry.lattice import TileLattice
from emslice.ledger.fingerprint import fingerprint
from emslice.models.checkpoint import Checkpoint
from emslice.ops.lookup import GreyLevel, level_from
from emslice.stages import intensity
from emslice.stages.intensity import Normalisation, cells_around


@dataclass(frozen=True)
class Measurement:
    """A normalisation, and the box whose histograms it needs."""

    normalisation: Normalisation
    box: Roi

    def fingerprint(self, window: tuple[int, int] | None, raw_identity: str) -> str:
        """Of the histograms. They know nothing of targets: those are part of predict's."""
        by_cell = self.normalisation.mode == "clahe"
        facts: dict[str, Any] = {
            "window": window,
            "box": show(self.box),
            "cell": self.normalisation.cell if by_cell else None,
            "volume": self.normalisation.needs_volume,
        }
        return fingerprint("intensity", intensity.VERSION, facts, raw_identity)


def summary_of(measurement: Measurement, facts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What a run says of the grey values that it measured, from the facts of the tasks."""
    moments, means = {"voxels": 0, "total": 0, "squares": 0}, []
    for task in facts:
        means += task.get("means", [])
        for name in moments:
            moments[name] += task.get(name, 0)
    summary: dict[str, Any] = {"roi": show(measurement.box), "voxels": moments["voxels"]}
    level = level_from(**moments)
    if level is not None:
        summary |= {"mean": round(level.mean, 2), "std": round(level.std, 2)}
    if means:
        summary["means_of_sections"] = [min(means), max(means)]
    return summary


def choose_normalisation(config: RawConfig, checkpoint: Checkpoint) -> Normalisation:
    """The normalisation asked for, with the target that the checkpoint states.

    Raises
    ------
    ConfigError
        ``affine`` without a target.
    """
    target = checkpoint.intensity if config.target is None else GreyLevel(*config.target)
    mode = config.normalize
    if mode == "auto":
        mode = "affine" if checkpoint.better_affine or config.target is not None else "none"
    if mode == "affine" and target is None:
        raise ConfigError(
            f"raw.normalize: affine moves raw to the grey values that a network was trained on, "
            f"and checkpoint {checkpoint.name} does not state them. Give their mean and standard "
            f"deviation, e.g. --set raw.target=[128,45], or choose match, clahe or none."
        )
    return Normalisation(mode, config.statistics, target, config.clahe.cell, config.clahe.clip)


def measure_for(
    chosen: Normalisation, roi: Roi, domain: Roi, predict: PredictConfig
) -> Measurement | None:
    """What must be measured to predict a box; None if nothing.

    Histograms are of whole sections, from the one before the box on, and to the one behind it if
    poses are reversed, or of the volume; those of cells are needed around every tile that meets
    the box.
    """
    if chosen.mode == "none":
        return None
    if chosen.needs_volume:
        return Measurement(chosen, domain)
    behind = predict.augment != "none"
    first, end = max(0, int(roi.begin[0]) - 1), min(int(roi.end[0]) + behind, int(domain.end[0]))
    whole = Roi((first, 0, 0), (end - first, domain.shape[1], domain.shape[2]))
    if chosen.mode != "clahe":
        return Measurement(chosen, whole)
    begin, shape = [first], [end - first]
    lattice = TileLattice((int(domain.shape[1]), int(domain.shape[2])), predict.tile)
    for low, high in (_seen(lattice, roi, axis) for axis in (0, 1)):
        begin.append(low)
        shape.append(high - low)
    return Measurement(chosen, cells_around(Roi(begin, shape), domain, chosen.cell))


def _seen(lattice: TileLattice, roi: Roi, axis: int) -> tuple[int, int]:
    """Begin and end of what tiles that meet a box read along y (0) or x (1)."""
    lines, low, high = lattice.axes[axis], roi.begin[axis + 1], roi.end[axis + 1]
    met = [s for s in lines.spans() if lines.answer(s)[0] < high and lines.answer(s)[1] > low]
    sources = [lines.sources(span) for span in met]
    return min(int(s.min()) for s in sources), max(int(s.max()) for s in sources) + 1
