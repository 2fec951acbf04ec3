"""The student on a GPU: a run of sections in, codes out, copies beside the network.

The same folded function as on processors (`folded`). Only raw and codes cross the bus, 1 and 3
bytes a voxel: while a pair is in the network, the section after it comes and the codes before it
go (`transfers`). What a run has on the device does not depend on its length, so there is nothing
to shorten when memory is scarce.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from emslice.errors import PrecisionError
from emslice.models.folded import fold_blocks
from emslice.models.gpu.determinism import same_kernels
from emslice.models.gpu.lanes import Features, Lanes
from emslice.models.gpu.operators import Head, Operators, PlainOperators, Shares
from emslice.models.gpu.range import out_of_range
from emslice.models.gpu.transfers import Download, Upload
from emslice.models.student import Student, Window


class GpuStudent:
    """Codes of runs of sections; several threads may ask at a time.

    Parameters
    ----------
    network : Student
        In evaluation mode; it is not changed.
    dtype : torch.dtype
        Of weights and features: float32, bfloat16 or float16. The first block stays in float32
        (docs/design/0012-precision.md).
    device : str
        ``cuda``; on ``cpu`` the same is done one after the other.
    operators : Operators, optional
        By default Triton's on ``cuda``, PyTorch's on ``cpu``.
    """

    def __init__(
        self,
        network: Student,
        dtype: torch.dtype,
        device: str = "cuda",
        operators: Operators | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.operators = operators or operators_for(self.device)
        self.dtype, self._n_features = dtype, network.features
        self._blocks = {
            name: [(weight.to(device), bias.to(device)) for weight, bias in weights]
            for name, weights in fold_blocks(network, dtype).items()
        }
        self.heads = (
            Head(*self._blocks["up4_t"].pop(), *_out_layer(network.outc_t, self.device, dtype)),
            Head(*self._blocks["up4_tn"].pop(), *_out_layer(network.outc_tn, self.device, dtype)),
        )
        self.lanes = Lanes(self)

    @torch.inference_mode()
    def run(
        self,
        sections: NDArray[np.uint8],
        blank: NDArray[np.bool_],
        window: Window,
        area: tuple[slice, slice],
    ) -> NDArray[np.uint8]:
        """As `PairStudent` says.

        Raises
        ------
        PrecisionError
            Features beyond the range of float16.
        """
        _, height, width = sections.shape
        codes = np.zeros((3, len(sections) - 1, *sections[0][area].shape), np.uint8)
        comes, goes = Upload(self.device, (height, width)), Download(self.device, codes)
        with same_kernels(), self.lanes.lane((height, width), window, area) as lane:
            going_on = False
            for z in range(1, len(sections)):
                if blank[z]:
                    going_on = False
                    continue
                if not going_on:
                    lane.begin(comes.take(sections[z - 1]))
                goes.put(z - 1, lane.advance(comes.take(sections[z])))
                going_on = True
            goes.finish()
            finite = lane.finite
        if not finite:
            raise PrecisionError(out_of_range(self.dtype))
        return codes

    def stem(self, section: Tensor, into: Features | None = None) -> Features:
        """Features of one section on the device, uint8, shape (Y, X)."""
        values = section.float()[None, None].contiguous(memory_format=torch.channels_last)
        into = into or self._room(section)
        full = self._block("inc", values, into.full)
        half = self._block("down.0", F.max_pool2d(full, 2), into.half)
        into.quarter.copy_(F.max_pool2d(half, 2))
        return into

    def decode(
        self, before: Features, here: Features, shares: list[Shares]
    ) -> tuple[Tensor, Tensor]:
        """What the heads of both sections of a pair take, shape (1, 2 C, Y, X).

        ``shares`` are those of maps at a half to a sixteenth of the resolution.
        """
        join = self.operators.join
        quarter = self._block("down.1", torch.cat([before.quarter, here.quarter], 1))
        eighth = self._block("down.2", F.max_pool2d(quarter, 2))
        deepest = self._block("down.3", F.max_pool2d(eighth, 2))
        trunk = self._block("up1", join(eighth, deepest, shares[3]))
        trunk = self._block("up2", join(quarter, trunk, shares[2]))
        decoded = []
        for features, head in ((before, "t"), (here, "tn")):
            # Upsampling the trunk for each head reads less than storing what was upsampled.
            inner = self._block(f"up3_{head}", join(features.half, trunk, shares[1]))
            decoded.append(self._block(f"up4_{head}", join(features.full, inner, shares[0])))
        return decoded[0], decoded[1]

    def _block(self, name: str, features: Tensor, out: Tensor | None = None) -> Tensor:
        *first, (weight, bias) = self._blocks[name]
        for each in first:
            features = self.operators.convolve(features, *each)
        return self.operators.convolve(features, weight, bias, out)

    def _room(self, section: Tensor) -> Features:
        """Memory for features of a section."""
        (height, width), n = section.shape, self._n_features
        shapes = [(n, 1), (2 * n, 2), (2 * n, 4)]
        return Features(*(
            torch.empty((1, channels, height // step, width // step), dtype=self.dtype,
                        device=self.device, memory_format=torch.channels_last)
            for channels, step in shapes
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
