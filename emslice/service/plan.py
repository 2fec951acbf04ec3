"""A segmentation, checked before any work: what is read, what is made, what it takes.

Everything a user can get wrong is found here; nothing is written before the plan stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from emslice.config.schema import HandoverConfig, RawConfig, SegmentConfig
from emslice.errors import ConfigError, RunExistsError, VolumeError
from emslice.geometry.boxes import Roi, n_voxels, parse_roi
from emslice.ledger.fingerprint import volume_identity
from emslice.models.checkpoint import Checkpoint
from emslice.ops.intensity import check_window
from emslice.service.handover import check_scratch
from emslice.service.identity import fingerprints
from emslice.service.machine import check_writable, default_node_memory, n_cores
from emslice.service.masking import open_mask
from emslice.service.methods import (
    check_run_methods,
)
from emslice.service.normalising import Measurement
from emslice.service.prediction import Prediction, plan_prediction
from emslice.units import parse_bytes
from emslice.volumes import Volume, open_volume
from emslice.volumes.places import local_path

DEFAULT_BLOCK = {2: (32, 512, 512), 3: (128, 256, 256)}
"""Voxels, by the dimensions of fragments. Any other gives the same result."""

RESOLUTION_TOLERANCE = 1.25
"""A voxel size within this factor of the checkpoint's raises no warning."""


@dataclass(frozen=True)
class Plan:
    """A run that can start."""

    folder: Path
    config: SegmentConfig
    raw: Volume | None
    affinities: Volume | None
    """One of the two is the input."""

    roi: Roi
    prediction: Prediction | None
    """None for stored affinities."""

    fingerprints: dict[str, str]
    """Of each stage, in order."""

    block_shape: tuple[int, int, int]
    workers: int
    node_memory: int
    """Bytes for the graph of a node above the blocks."""

    warnings: tuple[str, ...]
    mask: Volume | None = None
    """Voxels where it is 0 belong to no segment."""

    @property
    def source(self) -> Volume:
        """The input volume."""
        volume = self.raw or self.affinities
        assert volume is not None
        return volume

    @property
    def domain(self) -> Roi:
        """Full extent of the raw volume."""
        return self.source.domain

    @property
    def measurement(self) -> Measurement | None:
        """What is measured of raw before it is predicted."""
        return None if self.prediction is None else self.prediction.measurement

    def stage_folder(self, stage: str) -> Path:
        """Where a stage writes."""
        return self.folder / "stages" / stage / self.fingerprints[stage]


def plan_from_raw(
    raw_url: str, folder: str | Path, config: SegmentConfig, resume: bool = False
) -> Plan:
    """Plan of a segmentation of raw; only to resume may the run folder exist.

    Raises
    ------
    ConfigError
        Anything that cannot work: volume, checkpoint, ROI, window, memory, run folder.
    """
    raw = open_volume(raw_url)
    if raw.channels is not None:
        raise VolumeError(
            f"RAW {raw_url}: has {raw.channels} channels; expected one volume (Z, Y, X). "
            f"Stored affinities go through --from-affinities."
        )
    check_window(raw.dtype, config.raw.window)
    if raw.roi != raw.domain:
        raise VolumeError(
            f"RAW {raw_url}: is a crop of a larger volume (shape {tuple(raw.roi.shape)} of "
            f"{tuple(raw.domain.shape)}). Give the whole volume and choose the crop by --roi."
        )
    roi = _roi(config, raw, "RAW")
    prediction = plan_prediction(config, raw, roi)
    check_scratch(config, roi)
    identity = [volume_identity(raw.url), prediction.checkpoint.sha256]
    return _finish(folder, config, roi, raw, None, prediction, identity, resume)


def plan_from_affinities(
    url: str, folder: str | Path, config: SegmentConfig, resume: bool = False
) -> Plan:
    """Plan of a segmentation of stored affinities; only to resume may the run folder exist.

    Raises
    ------
    ConfigError
        Anything that cannot work. Values (NaN, range) are checked when they are read.
    """
    affinities = open_volume(url)
    if affinities.channels != 3:
        raise VolumeError(
            f"affinities {url}: expected shape (3, Z, Y, X), channels z, y, x; got "
            f"{affinities.channels or 'no'} channels and {tuple(affinities.roi.shape)} voxels."
        )
    if affinities.dtype != np.uint8 and not np.issubdtype(affinities.dtype, np.floating):
        raise VolumeError(
            f"affinities {url}: dtype is {affinities.dtype}; expected uint8 codes or floats in "
            f"[0, 1]."
        )
    if config.affinities == "keep":
        raise ConfigError("affinities: they are the input and stay where they are; drop 'keep'.")
    if (config.checkpoint, config.raw, config.handover) != (None, RawConfig(), HandoverConfig()):
        raise ConfigError(
            "checkpoint, raw, handover: nothing is predicted from stored affinities; drop them."
        )
    roi = _roi(config, affinities, "the affinities")
    identity = [volume_identity(affinities.url)]
    return _finish(folder, config, roi, None, affinities, None, identity, resume)


def _roi(config: SegmentConfig, volume: Volume, what: str) -> Roi:
    roi = volume.roi if config.roi is None else parse_roi(config.roi, volume.domain)
    if not volume.roi.contains(roi):
        raise ConfigError(
            f"--roi: {config.roi} leaves {what}, which hold {tuple(volume.roi.begin)} to "
            f"{tuple(volume.roi.end)} of a volume of {tuple(volume.domain.shape)} voxels."
        )
    return roi


def _finish(
    folder: str | Path,
    config: SegmentConfig,
    roi: Roi,
    raw: Volume | None,
    affinities: Volume | None,
    prediction: Prediction | None,
    identity: list[str],
    resume: bool,
) -> Plan:
    """Checks that both kinds of input share: run folder, disk, blocks."""
    folder, mask = local_path(folder), None
    source = raw or affinities
    assert source is not None
    if config.mask is not None:
        mask = open_mask(config.mask, source, roi)
    if not resume:
        if folder.is_symlink() or (
            folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        ):
            raise RunExistsError(
                f"RUN {folder}: already exists{_state(folder)}. Choose another name, go on "
                f"with it by 'emslice resume {folder}', or remove it if it is of no use."
            )
        # Bytes of affinities (3) and ids (8 each) never fill a disk: they compress tenfold.
        needed = n_voxels(roi) * (3 if config.affinities == "keep" else 2)
        check_writable(folder, needed)
    block = config.block or DEFAULT_BLOCK[config.fragments.dimensions]
    z, y, x = (min(b, int(n)) for b, n in zip(block, roi.shape, strict=True))
    block = (z, y, x)
    check_run_methods(config, block, roi, stored=affinities is not None)
    prints = fingerprints(config, roi, block, identity, prediction, mask)
    checkpoint = None if prediction is None else prediction.checkpoint
    warnings = (*_warnings(raw, checkpoint), *_anisotropy(config, source))
    workers = config.workers or n_cores()
    given = config.agglomeration.node_memory
    memory = default_node_memory(workers) if given is None else parse_bytes(given)
    return Plan(
        folder, config, raw, affinities, roi, prediction, prints, block, workers, memory, warnings,
        mask,
    )  # fmt: skip


def _state(folder: Path) -> str:
    """What a run says of itself, for a message."""
    try:
        record = yaml.safe_load((folder / "run.yaml").read_text())
        return f" ({record['state']}, begun {record['created']})"
    except (OSError, yaml.YAMLError, TypeError, KeyError):
        return ""


def _warnings(raw: Volume | None, checkpoint: Checkpoint | None) -> tuple[str, ...]:
    """What may be wrong but is not refused."""
    if raw is None or checkpoint is None:
        return ()
    if raw.resolution_nm is None:
        return (f"RAW {raw.url} states no resolution; {checkpoint.name} may not fit it.",)
    if checkpoint.resolution_nm is None:
        return (f"checkpoint {checkpoint.name} does not state the resolution of its training.",)
    mine, theirs = raw.resolution_nm, checkpoint.resolution_nm
    factors = [have / trained for have, trained in zip(mine, theirs, strict=True)]
    if all(1 / RESOLUTION_TOLERANCE <= f <= RESOLUTION_TOLERANCE for f in factors):
        return ()
    have, trained = (" x ".join(f"{n:g}" for n in r) for r in (mine, theirs))
    return (
        f"resolution: RAW has voxels of {have} nm, {checkpoint.name} was trained on {trained} nm: "
        f"a factor of {' x '.join(f'{f:.3g}' for f in factors)} (z, y, x). Expect poor results; "
        f"resample RAW or choose another checkpoint.",
    )


def _anisotropy(config: SegmentConfig, source: Volume) -> tuple[str, ...]:
    """Fragments in 3D measure distances in voxels."""
    size = source.resolution_nm
    if config.fragments.dimensions == 2 or size is None:
        return ()
    if max(size) <= RESOLUTION_TOLERANCE * min(size):
        return ()
    return (
        f"fragments.dimensions: 3 is for isotropic voxels; those of {source.url} are "
        f"{' x '.join(f'{n:g}' for n in size)} nm. Expect better results with 2.",
    )
