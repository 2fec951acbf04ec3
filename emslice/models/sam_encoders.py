"""The frozen half of the SAM teacher: one section in, features 16 times coarser out.

Three families of encoders, one call. Weights come from local files only; an encoder of random
weights (``random_tiny``) is for tests and dry runs and says so in its fingerprint. As in the
reference, a section goes in as it is: grey as three equal colours, at its own size, by default
without the mean and deviation of natural images.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emslice.errors import CheckpointError, ConfigError
from emslice.models import sam_bodies, sam_weights, tiny_vit

logger = logging.getLogger(__name__)

ENCODERS = ("sam2", "sam", "mobile_sam")
RANDOM = "random_tiny"
VERSION = "v1"  # of the features: raise it when the same weights give other numbers

COLOUR_MEAN = (0.485, 0.456, 0.406)
COLOUR_STD = (0.229, 0.224, 0.225)

Size = str | dict[str, Any]


class SectionEncoder(nn.Module):
    """Features of single sections; frozen, and in evaluation mode whatever one asks.

    Parameters
    ----------
    body : nn.Module
        From (B, 3, Y, X) to (B, 256, Y / 16, X / 16); ``multiple`` is what Y and X must be
        multiples of.
    fingerprint : str
        What the features depend on beside the section.
    standardise : bool
        Whether to subtract the mean of natural images and divide by their deviation.
    """

    channels: int = 256
    stride: int = 16
    frozen: bool = True
    """Its weights are in no saved state of a training."""

    def __init__(self, body: Any, fingerprint: str, standardise: bool = False) -> None:
        super().__init__()
        self.body: nn.Module = body
        self.multiple: int = body.multiple
        self.standardise = standardise
        self._fingerprint = f"{fingerprint}/standardise={standardise}/{VERSION}"
        self.requires_grad_(False)
        self.train(False)

    @property
    def fingerprint(self) -> str:
        """Identity of the features: kind, size, checksum of the weights, normalisation."""
        return self._fingerprint

    def train(self, mode: bool = True) -> SectionEncoder:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, sections: Tensor) -> Tensor:
        """Features, float, shape (B, 256, Y / 16, X / 16), without a gradient.

        Parameters
        ----------
        sections : Tensor, float, shape (B, 1, Y, X), in [0, 1]
        """
        step = self.multiple
        shape = tuple(sections.shape)
        if len(shape) != 4 or shape[1] != 1 or any(n < step or n % step for n in shape[2:]):
            raise ConfigError(
                f"sam.encoder: sections of shape {shape} do not fit; expected (B, 1, Y, X) with "
                f"Y and X multiples of {step}. Choose another crop."
            )
        with torch.no_grad():
            colours = sections.expand(-1, 3, -1, -1)
            if self.standardise:
                mean = sections.new_tensor(COLOUR_MEAN).view(3, 1, 1)
                colours = (colours - mean) / sections.new_tensor(COLOUR_STD).view(3, 1, 1)
            return self.body(colours)


@dataclass(frozen=True)
class _Family:
    """What differs between the kinds of encoders."""

    body: Any
    sizes: dict[str, dict[str, Any]]
    tiny: dict[str, Any]


FAMILIES = {
    "sam2": _Family(sam_bodies.Hiera, sam_bodies.HIERA_SIZES, sam_bodies.HIERA_TINY),
    "sam": _Family(sam_bodies.Vit, sam_bodies.VIT_SIZES, sam_bodies.VIT_TINY),
    "mobile_sam": _Family(tiny_vit.TinyVit, tiny_vit.SIZES, tiny_vit.TINY),
}


def make_encoder(
    kind: str,
    weights: str | Path | None = None,
    sha256: str | None = None,
    size: Size | None = None,
    seed: int | None = None,
    standardise: bool = False,
) -> SectionEncoder:
    """A frozen encoder of one kind, on the CPU, in float32.

    Parameters
    ----------
    kind : one of `ENCODERS`
    weights : path, optional
        A file of the authors, a ``.safetensors`` file or a folder of transformers.
    sha256 : str, optional
        Of the file that holds the weights; checked before anything is loaded.
    size : str or dict, optional
        A published size, sizes of one's own, or ``random_tiny``; told by the weights if missing.
    seed : int, optional
        Of random weights.

    Raises
    ------
    ConfigError
        An unknown kind or size, no weights, or a package that is not installed.
    CheckpointError
        A file that is missing, damaged, not the expected one, or of another encoder.
    """
    if kind not in FAMILIES:
        raise ConfigError(f"sam.encoder: {kind!r} is none of {', '.join(ENCODERS)}.")
    if weights is None:
        return _random(kind, size, 0 if seed is None else seed, standardise)
    if size == RANDOM:
        raise ConfigError(
            f"sam.size: {RANDOM} has random weights, but sam.weights is {weights}. Drop one."
        )
    path = Path(weights)
    file = sam_weights.find_weights(path)
    found = sam_weights.check_sha256(file, sha256)
    given = sam_weights.read_weights(file)
    family = FAMILIES[kind]
    chosen = _sizes(kind, size) if size is not None else _told(kind, path, given)
    with torch.device("meta"):  # the weights of the file become those of the network: no copy
        body = family.body(**chosen)
    sam_weights.fill(body, given, family.body.rename, str(file))
    return SectionEncoder(body, f"{kind}/{_label(kind, chosen)}/sha256={found}", standardise)


def _random(kind: str, size: Size | None, seed: int, standardise: bool) -> SectionEncoder:
    """An encoder that has learnt nothing."""
    if size != RANDOM and not isinstance(size, dict):
        raise ConfigError(
            f"sam.weights: missing; {kind} of size {size} needs a local file of weights. "
            f"For a dry run without any set sam.size: {RANDOM}."
        )
    chosen = FAMILIES[kind].tiny if size == RANDOM else _sizes(kind, size)
    with torch.random.fork_rng(devices=[]):
        body = FAMILIES[kind].body(**chosen)
    _randomise(body, seed)
    logger.warning("sam.size %s: these are features of a random network, not of %s", size, kind)
    name = RANDOM if size == RANDOM else _label(kind, chosen)
    return SectionEncoder(body, f"{kind}/{name}/random-seed-{seed}", standardise)


@torch.no_grad()
def _randomise(body: nn.Module, seed: int) -> None:
    """Weights such that every layer and every position matters."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in body.named_parameters():
        if value.ndim > 1 and name.endswith("weight"):
            value.normal_(0, value[0].numel() ** -0.5, generator=generator)
        elif name.endswith("weight"):
            value.uniform_(0.5, 1.5, generator=generator)
        else:  # biases and embeddings of positions
            value.normal_(0, 0.2, generator=generator)


def _sizes(kind: str, size: Size) -> dict[str, Any]:
    """Sizes by name, or those given, each of them known."""
    known = FAMILIES[kind].sizes
    if isinstance(size, str):
        if size not in known:
            raise ConfigError(
                f"sam.size: {size!r} is no size of {kind}: {', '.join(known)} or {RANDOM}."
            )
        return known[size]
    expected = set(FAMILIES[kind].tiny)
    if set(size) != expected:
        raise ConfigError(
            f"sam.size: {kind} takes {', '.join(sorted(expected))}; got {', '.join(sorted(size))}."
        )
    return size


def _told(kind: str, path: Path, given: dict[str, Tensor]) -> dict[str, Any]:
    """Sizes that a folder states, else the published ones that the weights fit."""
    family = FAMILIES[kind]
    config = sam_weights.read_config(path) if path.is_dir() else None
    if config is not None:
        try:
            return family.body.sizes_of(config)
        except ConfigError:
            raise
        except Exception as error:  # transformers checks with errors of its own
            reason = " ".join(str(error).split())[:100]
            raise CheckpointError(
                f"sam.weights: {path}/config.json does not describe a {kind}: {reason}."
            ) from error
    shapes = {family.body.rename(key): value.shape for key, value in given.items()}
    shapes.pop(None, None)
    for chosen in family.sizes.values():
        with torch.device("meta"):
            wanted = family.body(**chosen).state_dict()
        if {key: value.shape for key, value in wanted.items()} == shapes:
            return chosen
    raise CheckpointError(
        f"sam.weights: {path} fits no published size of {kind} ({', '.join(family.sizes)}): "
        f"{len(shapes)} of its {len(given)} tensors could be of such an encoder. Check "
        f"sam.encoder, or give sam.size."
    )


def _label(kind: str, chosen: dict[str, Any]) -> str:
    """Name of published sizes, or a hash of others."""
    for name, sizes in FAMILIES[kind].sizes.items():
        if sizes == chosen:
            return name
    text = json.dumps(chosen, sort_keys=True)
    return "sizes-" + hashlib.sha256(text.encode()).hexdigest()[:16]
