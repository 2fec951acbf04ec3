"""The published two-section network: a pair of sections in, one embedding of each out.

Written to the facts of CAD (CVPR 2024) and EM-SliceCrafter, with one addition: a tile knows where
it lies in its section, because upsampling with aligned corners depends on the section's size
(source coordinate ``J (h - 1) / (2 h - 1)`` for output ``J`` of a section ``h`` high). With tiles
on multiples of 16 and a halo of 112 voxels the inside of a tile equals the whole section up to
rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Window:
    """Where a feature map lies in its padded section, at the map's own level."""

    origin: tuple[int, int]
    """First voxel, y and x."""

    section: tuple[int, int]
    """Size of the padded section, y and x."""

    def halved(self) -> Window:
        """The same place one level deeper."""
        (y, x), (height, width) = self.origin, self.section
        return Window((y // 2, x // 2), (height // 2, width // 2))


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


def double_axis(features: Tensor, axis: int, origin: int, length: int) -> Tensor:
    """Twice as many samples along one axis, linear, corners of the *section* aligned.

    Output ``2 m`` lies ``m / (2 h - 1)`` before sample ``m`` and output ``2 m + 1`` lies
    ``(h - 1 - m) / (2 h - 1)`` behind it, where ``m`` counts from the section's first sample and
    ``h`` is the section's length. Beyond the map its last sample is repeated.

    Parameters
    ----------
    features : Tensor, float, shape (B, C, Y, X)
    axis : 2 or 3
    origin, length : int
        First sample of the map in its section, and the section's length, at this level.
    """
    return doubled(
        features, axis, *shares_along(features.shape[axis], origin, length, features.device)
    )


def shares_along(
    n: int, origin: int, length: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Share of the sample before in even outputs, and of that behind in odd ones, float64."""
    m = torch.arange(origin, origin + n, dtype=torch.float64, device=device)
    return m / (2 * length - 1), (length - 1 - m) / (2 * length - 1)


def doubled(features: Tensor, axis: int, back: Tensor, ahead: Tensor) -> Tensor:
    """As `double_axis`, with shares of any type."""
    n = features.shape[axis]
    shape = [1] * features.ndim
    shape[axis] = n
    back, ahead = (share.to(features.dtype).view(shape) for share in (back, ahead))
    first, last = features.narrow(axis, 0, 1), features.narrow(axis, n - 1, 1)
    before = torch.cat([first, features.narrow(axis, 0, n - 1)], axis)
    behind = torch.cat([features.narrow(axis, 1, n - 1), last], axis)
    even, odd = torch.lerp(features, before, back), torch.lerp(features, behind, ahead)
    return torch.stack([even, odd], axis + 1).flatten(axis, axis + 1)


def upsample(features: Tensor, window: Window) -> Tensor:
    """Features at twice the resolution, bilinear; ``window`` is that of the input."""
    if window == Window((0, 0), (features.shape[2], features.shape[3])) and features.requires_grad:
        # The same up to rounding, where training would spend a fifth of its time.
        return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=True)
    tall = double_axis(features, 2, window.origin[0], window.section[0])
    return double_axis(tall, 3, window.origin[1], window.section[1])


class Student(nn.Module):
    """Y-shaped network: shared stem, common trunk, one decoder head for each of the two sections.

    Parameters
    ----------
    features : int
        Channels of the first stage; the published students have 16.
    embedding : int
        Length of the embedding of a voxel; the published students have 16.
    """

    name: ClassVar[str] = "student"

    def __init__(self, features: int = 16, embedding: int = 16) -> None:
        super().__init__()
        f = features
        self.features, self.embedding = features, embedding
        self.spec: dict[str, Any] = {
            "network": self.name, "features": features, "embedding": embedding,
        }  # fmt: skip
        self.inc = DoubleConv(1, f)
        widths = [(f, 2 * f), (4 * f, 4 * f), (4 * f, 8 * f), (8 * f, 8 * f)]
        self.down = nn.ModuleList(DoubleConv(i, o) for i, o in widths)
        self.up1 = DoubleConv(16 * f, 4 * f)
        self.up2 = DoubleConv(8 * f, 2 * f)
        self.up3_t, self.up3_tn = DoubleConv(4 * f, f), DoubleConv(4 * f, f)
        self.up4_t, self.up4_tn = DoubleConv(2 * f, 2 * f), DoubleConv(2 * f, 2 * f)
        self.outc_t, self.outc_tn = (nn.Conv2d(2 * f, embedding, 1) for _ in range(2))
        self.pool = nn.MaxPool2d(2)

    def stem(self, section: Tensor) -> tuple[Tensor, Tensor]:
        """Features of one section at full and half resolution; its partner has no part in them.

        Parameters
        ----------
        section : Tensor, float, shape (B, 1, Y, X), in [0, 1]
        """
        full = self.inc(section)
        return full, self.down[0](self.pool(full))

    def decode(
        self, before: tuple[Tensor, Tensor], here: tuple[Tensor, Tensor], window: Window
    ) -> tuple[Tensor, Tensor]:
        """Embeddings of both sections of a pair from their stems.

        Returns
        -------
        before, here : Tensor, float, shape (B, embedding, Y, X)
            Not normalised.
        """
        windows = [window]  # windows[k] is that of level k
        for _ in range(4):
            windows.append(windows[-1].halved())
        half = torch.cat([before[1], here[1]], 1)
        quarter = self.down[1](self.pool(half))
        eighth = self.down[2](self.pool(quarter))
        deepest = self.down[3](self.pool(eighth))
        trunk = self.up1(torch.cat([eighth, upsample(deepest, windows[4])], 1))
        trunk = self.up2(torch.cat([quarter, upsample(trunk, windows[3])], 1))
        trunk = upsample(trunk, windows[2])  # the same for both heads
        heads = (
            (before, self.up3_t, self.up4_t, self.outc_t),
            (here, self.up3_tn, self.up4_tn, self.outc_tn),
        )
        embeddings = []
        for (full, halved), up3, up4, out in heads:
            inner = up3(torch.cat([halved, trunk], 1))
            embeddings.append(out(up4(torch.cat([full, upsample(inner, windows[1])], 1))))
        return embeddings[0], embeddings[1]

    def forward(self, pair: Tensor, window: Window | None = None) -> tuple[Tensor, Tensor]:
        """Embeddings of both sections of a pair.

        Parameters
        ----------
        pair : Tensor, float, shape (B, 2, Y, X), in [0, 1]
            Sections z - 1 and z; Y and X multiples of 16.
        window : Window, optional
            Where the pair lies; without it the pair is a whole section.
        """
        window = window or Window((0, 0), (pair.shape[2], pair.shape[3]))
        return self.decode(self.stem(pair[:, :1]), self.stem(pair[:, 1:]), window)

    def affinity_embeddings(self, sections: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Embeddings of every adjacent pair of a run of whole sections, each stem computed once.

        Parameters
        ----------
        sections : Tensor, float, shape (B, Z, Y, X), in [0, 1]
        """
        window = Window((0, 0), (sections.shape[2], sections.shape[3]))
        stems = [self.stem(sections[:, z : z + 1]) for z in range(sections.shape[1])]
        return [self.decode(before, here, window) for before, here in pairwise(stems)]

    @staticmethod
    def rename(key: str) -> str:
        """Name of a published weight in this class, which nests one module less."""
        for theirs in (".conv.conv.", ".mpconv.1.conv."):
            key = key.replace(theirs, ".")
        return key.replace(".conv.", ".") if key.startswith("outc_") else key

    @classmethod
    def sizes_of(cls, weights: dict[str, Tensor]) -> dict[str, Any] | None:
        """Arguments of the network that weights belong to; None if they are of another kind."""
        stem, out = weights.get("inc.0.weight"), weights.get("outc_tn.weight")
        if stem is None or out is None or not stem.ndim == out.ndim == 4:
            return None
        return {"features": stem.shape[0], "embedding": out.shape[0]}
