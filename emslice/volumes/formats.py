"""Opening volumes: the format is found by content, never by name.

Only metadata are read here. How attributes are understood is in `attributes.py` and `ome.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from emslice.errors import VolumeError
from emslice.geometry.boxes import Coordinate
from emslice.volumes import tensors
from emslice.volumes.attributes import OWN, Triple, check_axes, read_placement
from emslice.volumes.ome import level_zero
from emslice.volumes.places import (
    IMAGE_SUFFIXES,
    IMPORTED_SUFFIXES,
    import_command,
    local_path,
    split_dataset,
)
from emslice.volumes.volume import StoredVolume, Volume

KINDS = "buif"
"""NumPy kinds that a volume may hold: bool, integers, floats."""

N5_KEYS = ("dimensions", "blockSize", "dataType", "compression", "n5", "axes", "pixelResolution")
"""What N5 keeps in the same file as the attributes."""

WALK_FOLDERS = 1000
"""Most folders looked into when a group's arrays are listed for an error message."""


@dataclass(frozen=True)
class Node:
    """What one folder says it is."""

    driver: str
    """tensorstore's name of the format; empty for a group."""

    attributes: dict[str, Any]
    axes: Any
    """Names of the dimensions, if stated: whatever the file holds."""


def open_volume(url: str | Path, writable: bool = False) -> Volume:
    """Volume in a local folder: zarr v3 or v2, N5, or an OME-Zarr group (its level 0).

    Raises
    ------
    VolumeError
        Nothing there, not a volume, or one that emslice cannot take; the message says what to do.
    """
    path = local_path(url)
    _check_folder(path)
    node = read_node(path)
    if node is not None and node.driver:
        return _describe(path, path, node, None, writable)
    level = level_zero(node.attributes, str(path)) if node is not None else None
    if level is None:
        raise VolumeError(_no_array(path))
    inner = read_node(path / level.path)
    if inner is None or not inner.driver:
        raise VolumeError(f"{path}: OME level 0 should be at {level.path!r}, where no array is.")
    return _describe(path, path / level.path, inner, level.resolution_nm, writable)


def read_node(path: Path) -> Node | None:
    """What a folder holds; None if it is neither an array nor a group."""
    if (meta := _read_json(path / "zarr.json")) is not None:
        driver = "zarr3" if meta.get("node_type") == "array" else ""
        attributes = meta.get("attributes") or {}
        if not isinstance(attributes, dict):
            raise VolumeError(f"{path / 'zarr.json'}: its attributes are no JSON object.")
        return Node(driver, attributes, meta.get("dimension_names"))
    if (path / ".zarray").is_file():
        attributes = _read_json(path / ".zattrs") or {}
        return Node("zarr", attributes, attributes.get("_ARRAY_DIMENSIONS"))
    if (path / ".zgroup").is_file():
        return Node("", _read_json(path / ".zattrs") or {}, None)
    if (meta := _read_json(path / "attributes.json")) is not None:
        # N5 names its axes from the fastest, ours are from the slowest.
        axes = meta.get("axes")
        axes = axes[::-1] if isinstance(axes, list) else None
        return Node("n5" if "dimensions" in meta else "", meta, axes)
    return None


def _describe(
    path: Path, array: Path, node: Node, fallback_nm: Triple | None, writable: bool
) -> StoredVolume:
    tensor = tensors.open_tensor(str(array), node.driver, writable)
    shape, dtype = tuple(tensor.shape), np.dtype(tensor.dtype.numpy_dtype)
    if len(shape) not in (3, 4) or 0 in shape:
        raise VolumeError(
            f"{array}: its shape is {shape}; a volume is (Z, Y, X), or (C, Z, Y, X) with channels "
            f"first, and no side is 0."
        )
    if dtype.kind not in KINDS:
        raise VolumeError(f"{array}: holds {dtype}; a volume holds bool, integers or floats.")
    check_axes(node.axes, str(array))
    place = read_placement(node.attributes, shape[-3:], fallback_nm, str(array))
    layout = tensor.chunk_layout
    hidden = {*OWN, *(N5_KEYS if node.driver == "n5" else ("_ARRAY_DIMENSIONS",))}
    return StoredVolume(
        url=str(path),
        path=str(array),
        driver=node.driver,
        dtype=dtype,
        channels=shape[0] if len(shape) == 4 else None,
        roi=place.roi,
        domain=place.domain,
        resolution_nm=place.resolution_nm,
        chunk_shape=Coordinate(layout.read_chunk.shape[-3:]),
        shard_shape=Coordinate(layout.write_chunk.shape[-3:]),
        attributes={key: value for key, value in node.attributes.items() if key not in hidden},
        writable=writable,
    )


def _check_folder(path: Path) -> None:
    if path.is_dir():
        return
    source, dataset = split_dataset(str(path))
    if Path(source).is_file():
        if Path(source).suffix.lower() not in IMPORTED_SUFFIXES:
            raise VolumeError(f"{path}: is a file; a volume is a folder (zarr or N5).")
        name = f"{source}:{dataset}" if dataset else source
        raise VolumeError(
            f"{path}: is a file; import it once with `{import_command(name)}` and use the result."
        )
    raise VolumeError(f"{path}: no such volume; check the path.")


def _no_array(path: Path) -> str:
    """Why a folder without an array of its own cannot be opened, and what can."""
    found = list(islice(_arrays_inside(path), 11))
    if found:
        more = ", ..." if len(found) > 10 else ""
        return (
            f"{path}: is a group, not an array; open one of: "
            f"{', '.join(str(array) for array in found[:10])}{more}."
        )
    if any(child.suffix.lower() in IMAGE_SUFFIXES for child in path.iterdir()):
        return f"{path}: holds images; import them once with `{import_command(path)}`."
    return f"{path}: holds no zarr or N5 array; check the path."


def _arrays_inside(path: Path) -> Iterator[Path]:
    for folder, children, _ in islice(os.walk(path), WALK_FOLDERS):
        node = read_node(Path(folder))
        if node is not None and node.driver:
            children.clear()  # below an array are chunks, millions of them
            yield Path(folder)
        children.sort()


def _read_json(path: Path) -> dict[str, Any] | None:
    """Content of a metadata file; None if there is none."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise VolumeError(f"{path}: cannot be read as metadata: {error}") from error
    if not isinstance(content, dict):
        raise VolumeError(f"{path}: expected a JSON object, got {type(content).__name__}.")
    return content
