"""The identity of a result: a hash of everything it depends on, and of nothing else.

A fingerprint is a Merkle hash: the stage's name and code version, its parameters, the identities
of its inputs, the fingerprints upstream. Hosts, worker counts and block shapes are not in it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emslice.errors import StorageError

METADATA_FILES = ("zarr.json", ".zarray", ".zattrs", ".zgroup", "attributes.json")

SAMPLED_FILES = 1000
"""Most chunk files of a volume that are looked at."""


def fingerprint(stage: str, version: int, parameters: dict[str, Any], *inputs: str) -> str:
    """16 hex digits for a stage.

    >>> fingerprint("predict", 1, {"b": 2, "a": 1}) == fingerprint("predict", 1, {"a": 1, "b": 2})
    True
    """
    content = json.dumps([stage, version, parameters, inputs], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def volume_identity(url: str, array: str | None = None) -> str:
    """Identity of an input volume: its place, its metadata, and the dates of some of its chunks.

    Voxels are not read. Up to 1,000 files, spread evenly over the sorted names of each folder,
    answer for all by name, size and time of change. So a volume that is written again as a whole
    gets another identity; not noticed are chunks rewritten that are not among the 1,000, and a
    change that keeps size and time.

    Parameters
    ----------
    array : str, optional
        Folder of the array that is read, where the URL is that of a group around it (OME-Zarr).
        Without it all arrays of the group count.

    Raises
    ------
    StorageError
        A folder or a file cannot be looked at.

    Notes
    -----
    Lists at most 1,000 folders of each depth, and only those; a folder is listed whole.
    """
    group, root = Path(url).resolve(), Path(array or url).resolve()
    content = hashlib.sha256(json.dumps([str(group), os.path.relpath(root, group)]).encode())
    try:
        if root != group:
            for file in _metadata_files(group):
                content.update(_metadata(file, group))
        for part in _sample(root, root, SAMPLED_FILES):
            content.update(part)
    except OSError as error:
        raise StorageError(f"{url}: cannot be identified: {error}") from error
    return content.hexdigest()


def _metadata_files(folder: Path) -> list[Path]:
    return [folder / name for name in METADATA_FILES if (folder / name).is_file()]


def _metadata(file: Path, root: Path) -> bytes:
    facts = [str(file.relative_to(root)), hashlib.sha256(file.read_bytes()).hexdigest()]
    return json.dumps(facts).encode()


def _sample(folder: Path, root: Path, quota: int) -> Iterator[bytes]:
    """Metadata of a folder, and up to ``quota`` of the files below it."""
    if not folder.is_dir():
        return
    for file in _metadata_files(folder):
        yield _metadata(file, root)
    with os.scandir(folder) as entries:
        # Chunks have no dot in front; what has is metadata, or of the system and comes and goes.
        names = sorted(entry.name for entry in entries if _is_chunk(entry.name))
    n = min(quota, len(names))
    for k in range(n):
        path = folder / names[(2 * k + 1) * len(names) // (2 * n)]
        if path.is_dir():
            yield from _sample(path, root, quota // n + (k < quota % n))
        else:
            facts = path.stat()
            where = str(path.relative_to(root))
            yield json.dumps([where, facts.st_size, facts.st_mtime_ns]).encode()


def _is_chunk(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(".__lock") and name not in METADATA_FILES
