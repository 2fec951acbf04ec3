"""Where affinities wait between the network and the fragments, checked before any work."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from emslice.config.schema import SegmentConfig
from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi, n_voxels
from emslice.ledger.fingerprint import fingerprint
from emslice.units import human_bytes, parse_bytes
from emslice.volumes.places import local_path


def check_scratch(config: SegmentConfig, roi: Roi) -> None:
    """Raise `ConfigError` unless what waits has room in the scratch folder, if there is one."""
    if config.handover.scratch is None:
        return
    folder = local_path(config.handover.scratch)
    if config.affinities == "keep":
        raise ConfigError(
            "handover.scratch: only affinities that are dropped wait there. Drop it, or set "
            "affinities to drop."
        )
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"handover.scratch: {folder} is not a folder that can be written to. Make it, or "
            f"choose another one on this machine, such as /dev/shm."
        )
    needed = min(3 * n_voxels(roi), parse_bytes(config.handover.memory))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(
            f"handover.scratch: {human_bytes(needed)} of affinities may wait and "
            f"{human_bytes(free)} are free on {folder}. Set handover.memory to less than "
            f"{human_bytes(free)}, or choose another folder."
        )


def scratch_of(config: SegmentConfig, run: Path) -> Path | None:
    """A run's own place in the scratch folder, the same when it is resumed."""
    if config.handover.scratch is None:
        return None
    own = fingerprint("scratch", 1, {"run": str(run.absolute())})
    return local_path(config.handover.scratch) / f"emslice-{own}"


def clear_scratch(config: SegmentConfig, run: Path) -> None:
    """Remove a run's place in the scratch folder."""
    place = scratch_of(config, run)
    if place is not None:
        shutil.rmtree(place, ignore_errors=True)
