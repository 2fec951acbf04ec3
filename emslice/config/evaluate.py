"""Test sets: named volumes with truth, and how they are segmented to be scored."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from emslice.config.load import load_as, load_config
from emslice.config.schema import SegmentConfig, Strict
from emslice.errors import ConfigError
from emslice.volumes.layouts import dataset_layout
from emslice.volumes.places import from_root

ELSEWHERE = {
    "checkpoint": "give checkpoints by --checkpoint",
    "roi": "it belongs to the volume, beside raw and truth",
    "mask": "voxels without truth are not scored anyway",
    "affinities": "they are not kept",
    "block": "each volume is segmented as one block",
    "handover": "affinities stay in memory",
}
"""Keys of a segmentation that mean nothing here, and what to do instead."""

Threshold = Annotated[float, Field(ge=0, le=1)]


MEAN = "mean"
"""What the row of all volumes together is called."""

LONGEST_NAME = 100
"""Bytes; names of files hold those of a checkpoint and more beside it."""


class ScoredVolumeConfig(Strict):
    """A volume with truth."""

    raw: str
    """A volume, ``file.h5:dataset``, a TIFF stack, a folder of images, ``.npy``."""

    truth: str
    """True labels over the same voxels, of any such kind."""

    roi: str | None = None
    """Box z0:z1,y0:y1,x0:x1 in voxels of the whole volume; by default all of it."""

    segment: dict[str, Any] = Field(default={})
    """Parameters of its segmentation that differ from those of the others."""


class EvaluateConfig(Strict):
    """Volumes to be segmented with one checkpoint after another, and scored."""

    root: str | None = None
    """Folder from which paths that are not absolute start; by default the current one."""

    layout: str | None = None
    """Data set as its authors ship it below root, instead of volumes: `layouts.LAYOUTS`."""

    split: Literal["train", "validate", "test"] = "test"
    """Part of the layout."""

    thresholds: Annotated[int, Field(ge=2, le=200)] | list[Threshold] = 36
    """Of the sweep: how many even steps from agglomeration.lowest_threshold to 1, or which."""

    ignore: Annotated[int, Field(ge=0, lt=2**64)] = 0
    """True label that is not scored."""

    segment: dict[str, Any] = Field(default={})
    """Parameters of all segmentations: keys of configs/segment/default.yaml."""

    volumes: dict[str, ScoredVolumeConfig] = Field(default={})


@dataclass(frozen=True)
class LabelledVolume:
    """One volume of a test set, everything resolved."""

    name: str
    raw: str
    truth: str
    roi: str | None
    segment: SegmentConfig
    """Without checkpoint."""


@dataclass(frozen=True)
class LabelledVolumes:
    """What checkpoints are scored on."""

    volumes: tuple[LabelledVolume, ...]
    thresholds: int | list[float]
    ignore: int


def load_test_set(
    file: str | Path, assignments: Iterable[str] = (), root: str | None = None
) -> LabelledVolumes:
    """Checked test set of a YAML file.

    Parameters
    ----------
    assignments : iterable of ``key.sub=value``
        Over the segmentation parameters of every volume.
    root : folder, optional
        Instead of the file's.

    Raises
    ------
    ConfigError
        Unreadable file, unknown key (with the nearest known one), value of the wrong kind, no
        volume.
    """
    config = load_as(EvaluateConfig, file, what=f"--config {file}")
    start = Path(root or config.root or ".")
    shipped = _of_layout(config, start, file)
    if twice := sorted(shipped.keys() & config.volumes.keys()):
        raise ConfigError(f"--config {file}: volumes: {twice[0]} is in the layout; rename yours.")
    entries = {**shipped, **config.volumes}
    if not entries:
        raise ConfigError(f"--config {file}: no volume to score; name some below volumes.")
    given = tuple(assignments)
    volumes = []
    for name, entry in entries.items():
        if not name or "/" in name or name == MEAN or len(name.encode()) > LONGEST_NAME:
            raise ConfigError(
                f"--config {file}: volumes: {name!r} cannot name a picture and a row of a table: "
                f"1 to {LONGEST_NAME} bytes without '/', and not {MEAN!r}."
            )
        segment = _segment(f"--config {file}: volumes.{name}", config, entry, given)
        raw, truth = (from_root(start, path) for path in (entry.raw, entry.truth))
        volumes.append(LabelledVolume(name, raw, truth, entry.roi, segment))
    return LabelledVolumes(tuple(volumes), config.thresholds, config.ignore)


def _of_layout(
    config: EvaluateConfig, root: Path, file: str | Path
) -> dict[str, ScoredVolumeConfig]:
    """Volumes of a data set as it ships; sections become boxes."""
    if config.layout is None:
        return {}
    parts = [p for p in dataset_layout(config.layout, root) if p.split == config.split]
    if not parts:
        raise ConfigError(
            f"--config {file}: layout {config.layout} has no volume for {config.split} below "
            f"{root}. Check root, or 'emslice train check'."
        )
    entries = {}
    for part in parts:
        name = Path(part.raw.rpartition(":")[0]).stem.removesuffix("_inputs")
        roi = None if part.sections is None else "{}:{},:,:".format(*part.sections)
        entries[name] = ScoredVolumeConfig(raw=part.raw, truth=part.labels, roi=roi)
    return entries


def _segment(
    what: str, config: EvaluateConfig, entry: ScoredVolumeConfig, assignments: tuple[str, ...]
) -> SegmentConfig:
    """Parameters of a volume: the set's, then its own, then those of the command line."""
    tree = _laid_over(config.segment, entry.segment)
    given = {*tree, *(text.partition("=")[0].split(".")[0].strip() for text in assignments)}
    for key in sorted(given & set(ELSEWHERE)):
        raise ConfigError(f"{what}.segment.{key}: cannot be set here; {ELSEWHERE[key]}.")
    try:
        return load_config(base=tree, assignments=assignments)
    except ConfigError as error:
        raise ConfigError(f"{what}.segment: {error}") from None


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(dict(below))
    for key, value in above.items():
        inner = merged.get(key)
        if isinstance(value, Mapping) and isinstance(inner, dict):
            merged[key] = _laid_over(inner, value)
        else:
            merged[key] = value
    return merged
