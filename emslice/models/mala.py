"""MALA: a wide U-Net of valid convolutions, a 3D teacher.

Written to the facts of Funke et al. 2019 and of the baseline of CAD and EM-SliceCrafter. Every
convolution in the volume shortens the features by one voxel on each side, so a crop of 53 x 268
x 268 answers for its inner 25 x 56 x 56. Names of weights are those of the published code.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emslice.errors import ConfigError
from emslice.models.heads import check_head, guess_head

WIDTHS = (12, 60, 300, 1500)
SLOPE = 0.005


class Mala(nn.Module):
    """A volume in, an embedding or affinities of its inside out.

    Parameters
    ----------
    widths : four ints
        Channels of each level; pooling by (1, 3, 3) between them.
    outputs : int
        Length of the embedding, or number of channels.
    head : "embedding", "affinity" or "boundary"
        What the outputs are; all but embeddings go through a sigmoid.
    """

    name: ClassVar[str] = "mala"
    crop: ClassVar[tuple[int, int, int]] = (53, 268, 268)
    stride: ClassVar[tuple[int, int, int]] = (25, 56, 56)
    margin: ClassVar[tuple[int, int, int]] = (14, 106, 106)
    """Voxels z, y, x that the output is smaller than the input on each side."""

    blended: ClassVar[bool] = False
    """Whether windows overlap and are weighted by a Gaussian."""

    def __init__(
        self,
        widths: tuple[int, ...] | list[int] = WIDTHS,
        outputs: int = 16,
        head: str = "embedding",
    ) -> None:
        super().__init__()
        check_head(head, outputs)
        a, b, c, d = (int(width) for width in widths)
        self.spec: dict[str, Any] = {
            "network": self.name, "widths": [a, b, c, d], "outputs": outputs, "head": head,
        }  # fmt: skip
        self.head = head
        channels = [(1, a), (a, a), (a, b), (b, b), (b, c), (c, c), (c, d), (d, d)]  # conv1 to 8
        for deeper, width in ((d, c), (c, b), (b, a)):
            channels += [(deeper, width), (2 * width, width), (width, width)]
        for i, (inputs, width) in enumerate(channels, 1):
            narrowing = i in (9, 12, 15)
            self.add_module(f"conv{i}", nn.Conv3d(inputs, width, 1 if narrowing else 3))
        self.conv18 = nn.Conv3d(a, outputs, 1)
        for step, width in enumerate((d, c, b), 1):
            wider = nn.ConvTranspose3d(width, width, (1, 3, 3), (1, 3, 3), groups=width, bias=False)
            self.add_module(f"dconv{step}", wider)
        self.pool = nn.MaxPool3d((1, 3, 3))

    @property
    def bytes_per_voxel(self) -> int:
        """Upper bound of what a call takes, a voxel of the crop."""
        return 100 + 14 * self.spec["widths"][0]

    def check_crop(self, crop: tuple[int, int, int]) -> None:
        """Raise `ConfigError` unless a volume of this shape can be given to the network."""
        if crop[0] < 29 or any(n < 214 or (n - 214) % 27 for n in crop[1:]):
            raise ConfigError(
                f"predict.crop: {crop} does not fit MALA, which takes 29 and more along z and "
                f"214, 241, 268 ... voxels along y and x."
            )

    def _pair(self, first: int, features: Tensor) -> Tensor:
        """Two convolutions, ``conv{first}`` and the next."""
        for i in (first, first + 1):
            features = F.leaky_relu(self.get_submodule(f"conv{i}")(features), SLOPE)
        return features

    def logits(self, volume: Tensor) -> Tensor:
        """The outputs, before a sigmoid; ``margin`` voxels smaller on every side.

        Parameters
        ----------
        volume : Tensor, float, shape (B, 1, Z, Y, X), in [0, 1]
            Z at least 29; Y and X of 214 and more in steps of 27.
        """
        features, skips = volume, []
        for first in (1, 3, 5):
            skips.append(self._pair(first, features))
            features = self.pool(skips[-1])
        features = self._pair(7, features)
        for step, first in enumerate((9, 12, 15), 1):
            wide = self.get_submodule(f"dconv{step}")(features)
            above = self.get_submodule(f"conv{first}")(wide)
            skip = inside(skips.pop(), above.shape)
            features = self._pair(first + 1, torch.cat([above, skip], 1))
        return self.conv18(features)

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
        firsts = [weights.get(f"conv{i}.weight") for i in (1, 3, 5, 7)]
        last = weights.get("conv18.weight")
        if last is None or any(first is None for first in firsts):
            return None
        return {
            "widths": [first.shape[0] for first in firsts if first is not None],
            "outputs": last.shape[0],
            "head": guess_head(last.shape[0]),
        }


def inside(features: Tensor, shape: torch.Size) -> Tensor:
    """The middle of features, as long along z, y and x as ``shape``."""
    for axis in (2, 3, 4):
        spare = features.shape[axis] - shape[axis]
        features = features.narrow(axis, spare // 2, shape[axis])
    return features
