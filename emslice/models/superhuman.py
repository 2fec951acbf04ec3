"""The residual symmetric U-Net that is called superhuman: a 3D teacher, and its relatives.

Sections are never joined along z: pooling and upsampling are (1, 2, 2). Written to the facts of Lee
et al. 2017, of CAD (CVPR 2024: sum with the encoder, bilinear upsampling, an embedding or
affinities), of SSNS-Net (concatenation, transposed convolution) and of SAvEM3 (three poolings, a
boundary). Names of weights are those of the published code.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emslice.errors import ConfigError
from emslice.models.heads import check_head, guess_head

FILTERS = (28, 36, 48, 64, 80)
MOMENTUM = 0.001


class ResidualBlock(nn.Module):
    """A convolution in the section, then two in the volume whose sum with the first goes on."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.block1 = nn.Sequential(
            nn.Conv3d(inputs, outputs, (1, 3, 3), padding=(0, 1, 1), bias=False), *_norm(outputs)
        )
        self.block2 = nn.Sequential(
            nn.Conv3d(outputs, outputs, 3, padding=1, bias=False),
            *_norm(outputs),
            nn.Conv3d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.block3 = nn.BatchNorm3d(outputs, momentum=MOMENTUM)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape, with ``outputs`` channels."""
        first = self.block1(features)
        return F.elu(self.block3(first + self.block2(first)))


def _norm(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm3d(channels, momentum=MOMENTUM), nn.ELU()


def _upsampling(kind: str, inputs: int, outputs: int) -> nn.Sequential:
    """Twice as many voxels along y and x, then fewer channels."""
    wider: nn.Module
    if kind == "bilinear":
        wider = nn.Upsample(scale_factor=(1, 2, 2), mode="trilinear", align_corners=True)
    else:
        wider = nn.ConvTranspose3d(inputs, inputs, (1, 2, 2), (1, 2, 2), groups=inputs)
    return nn.Sequential(wider, nn.Conv3d(inputs, outputs, 1))


def _section_convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, (1, 5, 5), padding=(0, 2, 2)), nn.ELU(inplace=True)
    )


def _check(filters: list[int], outputs: int, head: str, merge: str, upsampling: str) -> None:
    check_head(head, outputs)
    if not 2 <= len(filters) <= 5:  # the decoder's names begin with conv4
        raise ConfigError(f"filters: expected 2 to 5 levels, got {filters}.")
    if merge not in ("add", "cat"):
        raise ConfigError(f"merge: {merge!r} is neither 'add' nor 'cat'.")
    if upsampling not in ("bilinear", "transposed"):
        raise ConfigError(f"upsampling: {upsampling!r} is neither 'bilinear' nor 'transposed'.")


class Superhuman(nn.Module):
    """A volume in, an embedding, affinities or a boundary of every voxel out.

    Parameters
    ----------
    filters : sequence of int
        Channels of each level; one pooling between two levels.
    outputs : int
        Length of the embedding, or number of channels.
    head : "embedding", "affinity" or "boundary"
        What the outputs are; all but embeddings go through a sigmoid.
    merge : "add" or "cat"
        How the decoder takes the encoder's features in.
    upsampling : "bilinear" or "transposed"
    """

    name: ClassVar[str] = "superhuman"
    crop: ClassVar[tuple[int, int, int]] = (18, 160, 160)
    stride: ClassVar[tuple[int, int, int]] = (10, 80, 80)
    margin: ClassVar[tuple[int, int, int]] = (0, 0, 0)
    """Voxels z, y, x that the output is smaller than the input on each side."""

    blended: ClassVar[bool] = True
    """Whether windows overlap and are weighted by a Gaussian."""

    def __init__(
        self,
        filters: tuple[int, ...] | list[int] = FILTERS,
        outputs: int = 16,
        head: str = "embedding",
        merge: str = "add",
        upsampling: str = "bilinear",
    ) -> None:
        super().__init__()
        widths = [int(width) for width in filters]
        _check(widths, outputs, head, merge, upsampling)
        self.spec: dict[str, Any] = {
            "network": self.name, "filters": widths, "outputs": outputs, "head": head,
            "merge": merge, "upsampling": upsampling,
        }  # fmt: skip
        self.depth, self.head, self.merge = len(widths) - 1, head, merge
        first = widths[0]
        self.embed_in = _section_convolution(1, first)
        for level, (inputs, width) in enumerate(pairwise([first, *widths[:-1]])):
            self.add_module(f"conv{level}", ResidualBlock(inputs, width))
        self.center = ResidualBlock(*widths[-2:])
        for step, (deeper, width) in enumerate(pairwise(reversed(widths))):
            merged = 2 * width if merge == "cat" else width
            self.add_module(f"up{step}", _upsampling(upsampling, deeper, width))
            self.add_module(f"cat{step}", nn.Sequential(*_norm(merged)))
            self.add_module(f"conv{4 + step}", ResidualBlock(merged, width))
        self.embed_out = _section_convolution(first, first)
        self.out_put = nn.Sequential(nn.Conv3d(first, outputs, 1))
        self.pool = nn.MaxPool3d((1, 2, 2))

    @property
    def bytes_per_voxel(self) -> int:
        """Upper bound of what a call takes, a voxel of the crop."""
        widths = self.spec["filters"]
        return 100 + 4 * self.spec["outputs"] + (60 if self.merge == "cat" else 32) * widths[0]

    def check_crop(self, crop: tuple[int, int, int]) -> None:
        """Raise `ConfigError` unless a volume of this shape can be given to the network."""
        step = 2**self.depth
        if crop[0] < 1 or any(n < step or n % step for n in crop[1:]):
            raise ConfigError(
                f"predict.crop: {crop} does not fit this superhuman network; along y and x it "
                f"takes multiples of {step} voxels."
            )

    def logits(self, volume: Tensor) -> Tensor:
        """The outputs, before a sigmoid.

        Parameters
        ----------
        volume : Tensor, float, shape (B, 1, Z, Y, X), in [0, 1]
            Y and X multiples of 2 to the number of poolings.
        """
        features, skips = self.embed_in(volume), []
        for level in range(self.depth):
            skips.append(self.get_submodule(f"conv{level}")(features))
            features = self.pool(skips[-1])
        features = self.center(features)
        for step in range(self.depth):
            above = self.get_submodule(f"up{step}")(features)
            skip = skips.pop()
            merged = above + skip if self.merge == "add" else torch.cat([above, skip], 1)
            features = self.get_submodule(f"cat{step}")(merged)
            features = self.get_submodule(f"conv{4 + step}")(features)
        return self.out_put(self.embed_out(features))

    def forward(self, volume: Tensor) -> Tensor:
        """Embeddings, or affinities or a boundary in [0, 1], shape (B, outputs, Z, Y, X)."""
        outputs = self.logits(volume)
        return outputs if self.head == "embedding" else torch.sigmoid(outputs)

    @staticmethod
    def rename(key: str) -> str:
        """Name of a published weight in this class."""
        return key

    @classmethod
    def sizes_of(cls, weights: dict[str, Tensor]) -> dict[str, Any] | None:
        """Arguments of the network that weights belong to; None if they are of another kind."""
        last, bridge = weights.get("out_put.0.weight"), weights.get("center.block3.weight")
        if last is None or bridge is None:
            return None
        depth = 0
        while f"up{depth}.1.weight" in weights:
            depth += 1
        filters = [len(weights[f"conv{level}.block3.weight"]) for level in range(depth)]
        merged, width = weights.get("cat0.0.weight"), weights["up0.1.weight"].shape[0]
        return {
            "filters": [*filters, len(bridge)],
            "outputs": last.shape[0],
            "head": guess_head(last.shape[0]),
            "merge": "cat" if merged is not None and len(merged) == 2 * width else "add",
            "upsampling": "transposed" if "up0.0.weight" in weights else "bilinear",
        }
