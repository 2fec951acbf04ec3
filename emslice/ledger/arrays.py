"""Named arrays in one file, written atomically: what nodes of the octree hand to each other."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.errors import StorageError
from emslice.ledger.files import write_atomic


def save_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write arrays by name; the file is complete and flushed when this returns."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())


def load_arrays(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    """Arrays that `save_arrays` wrote: those of some names, or all.

    Raises
    ------
    StorageError
        Missing or damaged file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names or file.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise StorageError(f"{path}: not a readable table: {error}") from error
