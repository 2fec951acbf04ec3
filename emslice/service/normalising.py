"""How a run normalises raw, and which part of the volume it must measure for that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from emslice.config.schema import RawConfig
from emslice.errors import ConfigError
from emslice.geometry.boxes import Coordinate, Roi, clip, show
from emslice.geometry.lattice import Lattice
from emslice.ledger.fingerprint import fingerprint
from emslice.models.checkpoint import Checkpoint
from emslice.ops.blank import BLANK_SIDE
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
    chosen: Normalisation, roi: Roi, domain: Roi, lattice: Lattice
) -> Measurement | None:
    """What must be measured to predict a box; None if nothing.

    Histograms are of the whole volume, or of the sections that the network sees for the box, as a
    whole; those of cells are needed only where it looks.
    """
    if chosen.mode == "none":
        return None
    if chosen.needs_volume:
        return Measurement(chosen, domain)
    seen = [_seen(lattice, roi, axis) for axis in range(3)]
    if chosen.mode != "clahe":
        seen[1:] = [(0, int(domain.shape[1])), (0, int(domain.shape[2]))]
    box = Roi([low for low, _ in seen], [high - low for low, high in seen])
    return Measurement(chosen, cells_around(_with_blank(box, roi, domain), domain, chosen.cell))


def _seen(lattice: Lattice, roi: Roi, axis: int) -> tuple[int, int]:
    """Begin and end of what is shown to the network along an axis, of all cells that meet a box."""
    line = Roi(roi.begin, [int(n) if d == axis else 1 for d, n in enumerate(roi.shape)])
    cells = lattice.meeting(line)
    sources = [lattice.sources(cell, clip(lattice.owned(cell), roi))[axis] for cell in cells]
    return min(int(s.min()) for s in sources), max(int(s.max()) for s in sources) + 1


def _with_blank(box: Roi, roi: Roi, domain: Roi) -> Roi:
    """A box and what is read to tell whether a voxel is blank."""
    margin = Coordinate(0, BLANK_SIDE - 1, BLANK_SIDE - 1)
    return box.union(roi.grow(margin, margin).intersect(domain))
