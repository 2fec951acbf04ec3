"""The identity of a result: a hash of everything it depends on, and of nothing else.

A fingerprint is a Merkle hash: the stage's name and code version, its parameters, the identities
of its inputs, the fingerprints upstream. Hosts, worker counts and block shapes are not in it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

METADATA_FILES = ("zarr.json", ".zarray", ".zattrs", "attributes.json")


def fingerprint(stage: str, version: int, parameters: dict[str, Any], *inputs: str) -> str:
    """16 hex digits for a stage.

    >>> fingerprint("predict", 1, {"b": 2, "a": 1}) == fingerprint("predict", 1, {"a": 1, "b": 2})
    True
    """
    content = json.dumps([stage, version, parameters, inputs], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def volume_identity(url: str) -> str:
    """Identity of an input volume: its place and the bytes of its metadata.

    Voxels are not read. A volume whose voxels change in place keeps its identity.
    """
    content = hashlib.sha256(str(Path(url).resolve()).encode())
    for name in METADATA_FILES:
        file = Path(url) / name
        content.update(file.read_bytes() if file.exists() else b"-")
    return content.hexdigest()
