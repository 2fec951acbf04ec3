"""The trainable half of the SAM teacher: features of a frozen encoder to embeddings of voxels.

Written to the facts of EM-SliceCrafter: five transposed convolutions, each doubling y and x, whose
input is what both sections have in common beside what is the section's own; then a convolution
that halves once, so that features 16 times coarser than the section end at its resolution. All
weights serve both sections. Which section is which is known from the order of fusion only.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emslice.errors import ConfigError

WIDTHS = (256, 128, 64, 32)


def _doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)


class SamAdapter(nn.Module):
    """Features of two adjacent sections in, an embedding of every voxel of both out.

    Swapping the sections swaps the embeddings once the halves of every fusion's weights are
    swapped as well; two equal sections have equal embeddings.

    Parameters
    ----------
    widths : sequence of int
        Channels behind each doubling but the last; four of them, as the stride is 16.
    embedding : int
        Length of the embedding.
    channels : int
        Of the encoder's features.
    """

    name: ClassVar[str] = "sam_adapter"
    stride: ClassVar[int] = 16
    """Voxels of a section along y and x that share a feature."""

    def __init__(
        self,
        widths: tuple[int, ...] | list[int] = WIDTHS,
        embedding: int = 16,
        channels: int = 256,
    ) -> None:
        super().__init__()
        sizes = [int(channels), *map(int, widths), int(embedding)]
        if len(sizes) != len(WIDTHS) + 2 or min(sizes) < 1:
            raise ConfigError(
                f"sam_adapter: expected {len(WIDTHS)} positive widths, got {list(widths)} with "
                f"{channels} channels and an embedding of {embedding}."
            )
        self.spec: dict[str, Any] = {
            "network": self.name, "widths": sizes[1:-1], "embedding": sizes[-1],
            "channels": sizes[0],
        }  # fmt: skip
        inputs = [channels, *(2 * width for width in sizes[1:-1])]
        self.doublings = nn.ModuleList(map(_doubling, inputs, sizes[1:]))
        self.fusions = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in sizes[1:-1])
        self.halving = nn.Conv2d(embedding, embedding, 3, stride=2, padding=1)

    def forward(self, before: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of both sections, float, shape (B, embedding, Y, X) each.

        Parameters
        ----------
        before, here : Tensor, float, shape (B, channels, Y / 16, X / 16)
            Features of sections z - 1 and z.
        """
        own = torch.cat([before, here])  # (2 B, ...): one call for both sections
        own = F.relu(self.doublings[0](own))
        last = len(self.fusions) - 1
        for step, fusion in enumerate(self.fusions):
            common = fusion(torch.cat(own.chunk(2), 1))
            own = _double(cast(nn.ConvTranspose2d, self.doublings[step + 1]), common, own)
            own = own if step == last else F.relu(own)
        first, second = self.halving(own).chunk(2)
        return first, second


def _double(doubling: nn.ConvTranspose2d, common: Tensor, own: Tensor) -> Tensor:
    """What the convolution makes of ``common`` beside ``own``, for both sections.

    It is linear: what is common to both sections is convolved once, not twice.
    """
    of_common, of_own = doubling.weight.tensor_split([common.shape[1]])
    shared = F.conv_transpose2d(common, of_common, doubling.bias, stride=2, padding=1)
    return F.conv_transpose2d(own, of_own, stride=2, padding=1) + shared.repeat(2, 1, 1, 1)
