"""Real affinities with dense truth, predicted once and kept in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

import emslice
from benchmarks.main_job import DATA

CHECKPOINT = "cad_AC34"


class RealEm(NamedTuple):
    """Affinities of the first sections of ac4_crop."""

    codes: NDArray[np.uint8]
    truth: NDArray[Any]
    path: Path
    """The codes as .npy, shape (3, Z, Y, X)."""


def load_ac4(folder: Path, sections: int = 40) -> RealEm:
    """Affinities of ac4_crop by the published student, from the folder if they are there."""
    path = folder / f"ac4_{CHECKPOINT}_{sections}_float32.npy"
    with h5py.File(DATA / "ac4_crop.h5") as file:
        raw, truth = file["raw"][:sections], file["labels"][:sections]
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        codes = emslice.predict_affinities(
            raw, DATA / "checkpoints" / f"{CHECKPOINT}.ckpt", precision="float32"
        )
        np.save(path, codes)
    return RealEm(np.load(path), truth, path)
