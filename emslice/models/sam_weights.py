"""Weights of image encoders in local files: never from a network, never with code in them.

What may be given: a file of the authors (``.pt``, ``.pth``), a ``.safetensors`` file, or a folder
as `transformers` writes it. The checksum is that of the file that holds the weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emslice.errors import CheckpointError, ConfigError

IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
WRAPPERS = ("model", "state_dict", "model_state_dict")


def find_weights(path: Path) -> Path:
    """The file that holds the weights: the path itself, or the one in a folder."""
    if not path.is_dir():
        if not path.is_file():
            raise CheckpointError(f"sam.weights: no file {path}. Check the path.")
        return path
    for name in IN_FOLDER:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(
        f"sam.weights: folder {path} holds neither {' nor '.join(IN_FOLDER)}. "
        f"Weights in several files are not read: save them in one."
    )


def check_sha256(file: Path, expected: str | None) -> str:
    """Checksum of a file, hexadecimal; an error unless it is the expected one, if there is one."""
    try:
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"sam.weights: {file} cannot be read ({error.strerror}).") from error
    if expected is not None and found != expected.strip().lower():
        raise CheckpointError(
            f"sam.weights: {file} ({file.stat().st_size} bytes) has sha256 {found}, sam.sha256 "
            f"says {expected}. Get the file again, or correct sam.sha256."
        )
    return found


def read_weights(file: Path) -> dict[str, Tensor]:
    """Named tensors of a file, on the CPU."""
    try:
        if file.suffix == ".safetensors":
            content: Any = _read_safetensors(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except ConfigError:
        raise
    except Exception as error:  # the readers raise whatever the damage makes them meet
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise CheckpointError(
            f"sam.weights: {file} is no readable file of weights ({file.stat().st_size} bytes; "
            f"{reason}). It may be truncated: compare its size with the original."
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise CheckpointError(
            f"sam.weights: {file} holds a {type(content).__name__}, expected a dict of weights."
        )
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ConfigError(
            f"sam.weights: {file} needs the package safetensors, which cannot be imported "
            f'({error}). Install it: pip install "emslice[train]".'
        ) from error
    return load_file(file)


def read_config(folder: Path) -> dict[str, Any] | None:
    """What a folder of transformers says of the image encoder; None without a ``config.json``."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_bytes())
        return dict(config.get("vision_config") or config)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"sam.weights: {path} is no configuration: {error}") from error


def fill(
    body: nn.Module, given: dict[str, Tensor], rename: Callable[[str], str | None], source: str
) -> None:
    """Give an encoder its weights, in float32; all of them, each of the right shape, no other."""
    named = {rename(key): value for key, value in given.items()}
    weights = {key: value.float() if value.is_floating_point() else value
               for key, value in named.items() if key is not None}  # fmt: skip
    wanted = body.state_dict()
    missing, foreign = wanted.keys() - weights.keys(), weights.keys() - wanted.keys()
    odd = [
        f"{key} is {tuple(weights[key].shape)}, expected {tuple(wanted[key].shape)}"
        for key in sorted(wanted.keys() & weights.keys())
        if weights[key].shape != wanted[key].shape
    ]
    if missing or foreign or odd:
        first = (odd + [f"{key} is missing" for key in sorted(missing)]
                 + [f"{key} is unknown" for key in sorted(foreign)])[:3]  # fmt: skip
        raise CheckpointError(
            f"sam.weights: {source} holds weights of another encoder: of {len(wanted)} expected "
            f"{len(missing)} missing, {len(foreign)} unknown, {len(odd)} of another shape "
            f"({'; '.join(first)}). Check sam.encoder and sam.size."
        )
    body.load_state_dict(weights, strict=True, assign=True)
