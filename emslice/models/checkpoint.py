"""Weights on disk: the authors' published files and emslice's own format.

Our file is a ``torch.save`` of plain values: ``format``, ``version``, ``spec`` (network and its
sizes), ``training`` (resolution, provenance, scores) and ``weights``. Files are always read with
``weights_only=True``: a checkpoint cannot run code.
"""

from __future__ import annotations

import hashlib
import math
import os
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emslice.errors import CheckpointError, ConfigError
from emslice.models.networks import NETWORKS, Network, count_parameters
from emslice.ops.lookup import GreyLevel

FORMAT = "emslice-checkpoint"
VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A network's weights and what is known about them."""

    network: Network
    """In evaluation mode, float32, on the CPU."""

    sha256: str
    """Of the file's bytes: the identity of the checkpoint in every run."""

    name: str
    resolution_nm: tuple[float, float, float] | None = None
    """Voxel size of the training data, zyx; None if unknown."""

    provenance: dict[str, Any] = field(default_factory=dict)

    intensity: GreyLevel | None = None
    """Of the training data; None if unknown."""

    better_affine: bool = False
    """Whether raw is moved there by default."""


# What the published files do not say of themselves: section 1.4 and 6.7 of the reference.
PUBLISHED = {
    "b3ffbbcffe07433c9d173030ec60533ccf6a8ae6551b1732f2f3c79a5ef64d64": ("cad_AC34", (30, 6, 6)),
    "d06468b6f84336e3eb66b099e89b345982d5547ae52882aa63dde26fc8ed166f": ("cad_CremiA", (40, 4, 4)),
    "866e83adc4adb9cf1c923832f5e630f0bc4702af347156b19d5d09f4aa4987cb": ("cad_CremiB", (40, 4, 4)),
    "50190441fa61a07d02a09797d715d9c1cc9ec3953b4506ef87faa23386ef301b": ("cad_CremiC", (40, 4, 4)),
    "3d22925e8776493c617359f1148e2713bdf7d9a655550b70b864c05a4fcde53f": ("cad_wafer4", (35, 8, 8)),
    "b1ed14ad725051fb71dc9159613878b3c8fc2a9164b7ef22927cab1f05d7a734": (
        "slicecrafter_wafer4",
        (35, 8, 8),
    ),
}

# Recovered from their first batch normalisation (section 2.1): to about 1 %, augmentation included.
INTENSITY = {
    "cad_AC34": GreyLevel(126, 46),
    "cad_CremiA": GreyLevel(122, 28),
    "cad_CremiB": GreyLevel(121, 29),
    "cad_CremiC": GreyLevel(122, 29),
    "cad_wafer4": GreyLevel(137, 62),
    "slicecrafter_wafer4": GreyLevel(114, 70),
}

BETTER_AFFINE = ("cad_wafer4", "slicecrafter_wafer4")
"""Published students whose raw is moved to their `INTENSITY` unless one asks for something else:
those for which that was measured to help (docs/results/intensity.md)."""


def save_checkpoint(
    path: str | Path,
    network: Network,
    resolution_nm: tuple[float, float, float],
    provenance: dict[str, Any],
    dtype: torch.dtype = torch.float32,
    intensity: GreyLevel | None = None,
) -> None:
    """Write our format: after a crash the file is the old one or the new.

    ``dtype`` is that of the stored floats, not of the network. ``intensity`` is that of the raw it
    was trained on, for ``--normalize affine``.
    """
    weights = {
        key: value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype)
        for key, value in network.state_dict().items()
    }
    training: dict[str, Any] = {"resolution_nm": list(resolution_nm), "provenance": provenance}
    if intensity is not None:
        training["intensity"] = asdict(intensity)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "spec": network.spec,
        "training": training,
        "weights": weights,
    }
    path = Path(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # makes the rename durable
    finally:
        os.close(folder)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Network and facts of a checkpoint of either kind.

    Raises
    ------
    CheckpointError
        No such file, a truncated or foreign file, or weights of another network.
    """
    path = Path(path)
    sha256 = _hash_file(path)
    content = _read(path)
    if content.get("format") == FORMAT:
        return _ours(path, content, sha256)
    weights = content.get("model_weights", content)
    name, resolution = PUBLISHED.get(sha256, (path.stem, None))
    provenance = {"source": "published student (CAD, EM-SliceCrafter)"} if resolution else {}
    intensity = INTENSITY[name] if resolution else None
    affine = intensity is not None and name in BETTER_AFFINE
    network = _build(path, weights)
    return Checkpoint(network, sha256, name, resolution, provenance, intensity, affine)


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {path}: cannot be read ({error.strerror}). Check the path."
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the damage makes it meet
        size = path.stat().st_size
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise CheckpointError(
            f"checkpoint {path}: not a readable checkpoint ({size} bytes; {reason}). "
            f"It may be truncated: compare its size with the original and copy it again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"checkpoint {path}: holds a {type(content).__name__}, expected a dict of weights."
        )
    return content


def _ours(path: Path, content: dict[str, Any], sha256: str) -> Checkpoint:
    if content.get("version") != VERSION:
        raise CheckpointError(
            f"checkpoint {path}: format version {content.get('version')}, "
            f"this emslice reads {VERSION}. Update emslice."
        )
    try:
        training = content["training"]
        z, y, x = (float(n) for n in training["resolution_nm"])
        spec = content["spec"]
        network = _build(path, content["weights"], spec)
        provenance, intensity = training["provenance"], _level(training.get("intensity"))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"checkpoint {path}: a field is missing or broken: {error}"
        ) from error
    if not all(math.isfinite(n) and n > 0 for n in (z, y, x)):
        raise CheckpointError(
            f"checkpoint {path}: resolution_nm: expected three positive numbers z,y,x, "
            f"got {training['resolution_nm']!r}."
        )
    if spec != network.spec:
        raise CheckpointError(
            f"checkpoint {path}: its spec is {spec!r}, its weights are those of {network.spec}. "
            f"Save it again with save_checkpoint."
        )
    return Checkpoint(network, sha256, path.stem, (z, y, x), provenance, intensity)


def _level(stated: Any) -> GreyLevel | None:
    """Intensity of the training data, if a file states it."""
    if stated is None:
        return None
    level = GreyLevel(float(stated["mean"]), float(stated["std"]))
    if not (0 <= level.mean <= 255 and 0 < level.std <= 255):
        raise ValueError(f"intensity: mean {level.mean:g}, std {level.std:g} are no grey values")
    return level


def _build(path: Path, content: Any, spec: Any = None) -> Network:
    """Network whose sizes are those of the weights; every key must fit.

    ``spec`` says what weights cannot tell: what the outputs of a 3D network are.
    """
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise CheckpointError(f"checkpoint {path}: the weights are a {kind}, expected a dict.")
    given = {str(key).removeprefix("module."): value for key, value in content.items()}
    network = None
    for kind_of in NETWORKS:
        weights = {kind_of.rename(k): v for k, v in given.items() if isinstance(v, Tensor)}
        try:
            network = _empty(kind_of, weights, spec)
        except (ConfigError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint {path}: weights of a {kind_of.name} of impossible sizes: {error}"
            ) from error
        if network is not None:
            break
    if network is None:
        first = ", ".join(sorted(given)[:3]) or "nothing"
        raise CheckpointError(
            f"checkpoint {path}: weights of another network ({len(content)} entries: {first}, ...);"
            f" expected one of {', '.join(k.name for k in NETWORKS)}; the two-section student has "
            f"158 entries: inc, down, up1 ... outc_tn."
        )
    _fill(path, network, weights)
    return network


def _empty(kind: type[Network], weights: dict[str, Tensor], spec: Any) -> Network | None:
    """A network of the sizes of some weights; None if they are of another kind."""
    sizes = kind.sizes_of(weights)
    if sizes is None:
        return None
    if "head" in sizes and isinstance(spec, dict) and spec.get("network") == kind.name:
        sizes["head"] = spec.get("head")
    with torch.device("meta"):  # before memory is taken for what a damaged file asks for
        wanted = count_parameters(kind(**sizes))
    if wanted > 2 * sum(weight.numel() for weight in weights.values()):
        raise ConfigError(f"a network of {wanted:,} parameters is not in the file")
    return kind(**sizes)


def _fill(path: Path, network: Network, weights: dict[str, Tensor]) -> None:
    """Put weights into a network of their sizes, in evaluation mode."""
    floats = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
    try:
        network.load_state_dict(floats, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise CheckpointError(
            f"checkpoint {path}: weights do not fit the {network.name} of {network.spec}: "
            f"{' '.join(lines)}"
        ) from error
    if not all(bool(torch.isfinite(v).all()) for v in floats.values() if v.is_floating_point()):
        raise CheckpointError(f"checkpoint {path}: some weights are NaN or infinite.")
    network.eval()
