"""Which volumes a training reads: those of its configuration, or of a data set as it ships."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from emslice.config.training import DataConfig, VolumeConfig
from emslice.errors import ConfigError
from emslice.geometry.boxes import show
from emslice.training.sources import TrainingVolume, VolumeSpec
from emslice.units import parse_bytes
from emslice.volumes.layouts import LabelledPart, dataset_layout
from emslice.volumes.places import from_root


class Named(NamedTuple):
    """A volume and what errors call it."""

    key: str
    volume: VolumeConfig


class Volumes(NamedTuple):
    """What is trained on, and what chooses the best step."""

    train: list[TrainingVolume]
    validate: list[TrainingVolume]


def open_volumes(data: DataConfig) -> Volumes:
    """All volumes, checked.

    Raises
    ------
    ConfigError
        One is missing, unreadable, or not labelled where it must be.
    """
    train, validate = name_volumes(data)
    opened = Volumes(*([open_volume(named, data) for named in part] for part in (train, validate)))
    for named, volume in zip(validate, opened.validate, strict=True):
        if not volume.labelled:
            raise ConfigError(f"{named.key}.labels: missing; without truth there are no scores.")
        for other, trained in zip(train, opened.train, strict=True):
            shared = volume.roi.intersect(trained.roi)
            if named.volume.raw == other.volume.raw and not shared.empty:
                raise ConfigError(
                    f"{named.key} and {other.key} share {show(shared)} of {named.volume.raw}: what "
                    f"is trained on cannot choose the best step. Set their sections apart."
                )
    return opened


def open_volume(named: Named, data: DataConfig) -> TrainingVolume:
    """One volume."""
    spec = VolumeSpec(**named.volume.model_dump())
    return TrainingVolume.open(spec, named.key, parse_bytes(data.memory))


def name_volumes(data: DataConfig) -> tuple[list[Named], list[Named]]:
    """Volumes to train on and to validate on; nothing is opened."""
    root = Path(data.root or ".")
    validate = [Named(f"data.validate_on[{i}]", v) for i, v in enumerate(data.validate_on)]
    if data.layout is None:
        train = [Named(f"data.train[{i}]", v) for i, v in enumerate(data.train)]
    else:
        train, shipped = _of_layout(data.layout, root, 0 if validate else data.hold_out)
        validate = validate or shipped
    found = [[Named(n.key, _from(root, n.volume)) for n in part] for part in (train, validate)]
    return found[0], found[1]


def _of_layout(layout: str, root: Path, hold_out: int) -> tuple[list[Named], list[Named]]:
    parts = dataset_layout(layout, root)
    train = [part for part in parts if part.split == "train"]
    validate = [part for part in parts if part.split == "validate"]
    if not train:
        raise ConfigError(
            f"data.layout: {layout} has no volume to train on below {root}. Check data.root, or "
            f"see emslice train check."
        )
    if not validate and hold_out:
        validate = [part._replace(sections=_last(part, hold_out)) for part in train]
        train = [part._replace(sections=_first(part, hold_out)) for part in train]
    return [_named(part) for part in train], [_named(part) for part in validate]


def _last(part: LabelledPart, n: int) -> tuple[int, int]:
    _, end = _sections(part, n)
    return end - n, end


def _first(part: LabelledPart, n: int) -> tuple[int, int]:
    begin, end = _sections(part, n)
    return begin, end - n


def _sections(part: LabelledPart, n: int) -> tuple[int, int]:
    if part.sections is None or part.sections[1] - part.sections[0] <= n:
        raise ConfigError(
            f"data.hold_out: {n} sections cannot be held out of {part.raw} "
            f"({part.sections or 'all sections'}); set fewer."
        )
    return part.sections


def _named(part: LabelledPart) -> Named:
    volume = VolumeConfig(raw=part.raw, labels=part.labels, sections=part.sections)
    return Named(f"data.layout: {part.raw}", volume)


def _from(root: Path, volume: VolumeConfig) -> VolumeConfig:
    """The volume with paths from the root."""
    paths = {
        name: from_root(root, path)
        for name in ("raw", "labels", "mask")
        if (path := getattr(volume, name)) is not None
    }
    return volume.model_copy(update=paths)
