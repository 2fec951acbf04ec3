"""The folded student's weights on a device, and what it computes from a pair of sections."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emslice.models.folded import Stem, decode_pair, fold_blocks
from emslice.models.gpu.operators import Head, Operators, PlainOperators, Shares
from emslice.models.student import Student


class GpuNetwork:
    """The same function of a pair as `folded.FoldedStudent`.

    Parameters
    ----------
    network : Student
        In evaluation mode; it is not changed.
    dtype : torch.dtype
        Of weights and features, but for the first block, which stays in float32
        (docs/design/0012-precision.md).
    device : str
    operators : Operators, optional
        By default Triton's on ``cuda``, PyTorch's on ``cpu``.
    """

    def __init__(
        self, network: Student, dtype: torch.dtype, device: str, operators: Operators | None
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self.operators = operators or operators_for(self.device)
        self._n_features = network.features
        self._blocks = {
            name: [(weight.to(device), bias.to(device)) for weight, bias in weights]
            for name, weights in fold_blocks(network, dtype).items()
        }
        # The last convolution of each head is the operators' to finish with.
        self.heads = (
            Head(*self._blocks["up4_t"].pop(), *_out_layer(network.outc_t, self.device, dtype)),
            Head(*self._blocks["up4_tn"].pop(), *_out_layer(network.outc_tn, self.device, dtype)),
        )

    def stem(self, section: Tensor, into: Stem | None = None) -> Stem:
        """Features of one section on the device, uint8, shape (Y, X)."""
        height, width = section.shape
        # With one channel every layout looks like channels first, unless the strides say otherwise.
        values = section.float().as_strided(
            (1, 1, height, width), (height * width, 1, width, 1)
        )  # fmt: skip
        into = into or self._room(height, width)
        full = self._block("inc", values, into.full)
        half = self._block("down.0", F.max_pool2d(full, 2), into.half)
        into.quarter.copy_(F.max_pool2d(half, 2))
        return into

    def decode(self, before: Stem, here: Stem, shares: list[Shares]) -> tuple[Tensor, Tensor]:
        """What the heads of both sections of a pair take, shape (1, 2 C, Y, X).

        ``shares`` are those of maps at a half to a sixteenth of the resolution.
        """
        return decode_pair(
            before, here, self._block,
            lambda skip, deep, level: self.operators.join(skip, deep, shares[level - 1]),
        )  # fmt: skip

    def _block(self, name: str, features: Tensor, out: Tensor | None = None) -> Tensor:
        *first, (weight, bias) = self._blocks[name]
        for each in first:
            features = self.operators.convolve(features, *each)
        return self.operators.convolve(features, weight, bias, out)

    def _room(self, height: int, width: int) -> Stem:
        """Memory for features of a section."""
        n = self._n_features
        return Stem(*(
            torch.empty((1, channels, height // step, width // step), dtype=self.dtype,
                        device=self.device, memory_format=torch.channels_last)
            for channels, step in ((n, 1), (2 * n, 2), (2 * n, 4))
        ))  # fmt: skip


def _out_layer(layer: nn.Conv2d, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight of a convolution of one pixel, shape (E, C), and its bias."""
    weight, bias = layer.weight.detach()[:, :, 0, 0], cast(Tensor, layer.bias).detach()
    return weight.to(device, dtype).contiguous(), bias.to(device, torch.float32)


def operators_for(device: torch.device) -> Operators:
    """The fast ones of a device."""
    if device.type != "cuda":
        return PlainOperators()
    from emslice.models.gpu.kernels import TritonOperators  # only builds for CUDA bring Triton

    return TritonOperators()
