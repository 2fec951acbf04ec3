"""The student as it is run on processors: the same function of a pair, in fewer passes.

Batch normalisation is part of the weights of the convolution before it, features lie channels
last, and upsampling writes straight beside the skip.

In bfloat16 weights and features are stored so; convolutions sum in float32, and upsampling, cosines
and quantisation are computed in float32. The first block stays in float32: it looks for small
differences between large values, and with its nine by sixteen first weights rounded alone a seventh
of all codes moved by more than 1 (docs/design/0012-precision.md). It is 4 % of the work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from emslice.models.student import DoubleConv, Student, Window
from emslice.ops.pair_codes import pair_codes
from emslice.ops.upsample import join_upsampled


class Stem(NamedTuple):
    """Features of one section, shape (1, C, Y, X), channels last."""

    full: Tensor
    half: Tensor
    quarter: Tensor
    """``half``, pooled: what the trunk sees."""


Weights = tuple[Tensor, Tensor]


class FoldedStudent:
    """Embeddings of one pair at a time, for prediction.

    Parameters
    ----------
    network : Student
        In evaluation mode; it is not changed.
    dtype : torch.dtype
        Of weights and features, float32 or bfloat16.
    """

    def __init__(self, network: Student, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self._blocks = fold_blocks(network, dtype)
        self._out = {
            name: (
                layer.weight.detach()[:, :, 0, 0].to(dtype),
                cast(Tensor, layer.bias).detach()[:, None].to(dtype),
            )
            for name, layer in (("t", network.outc_t), ("tn", network.outc_tn))
        }

    def run(
        self,
        sections: NDArray[np.uint8],
        blank: NDArray[np.bool_],
        window: Window,
        area: tuple[slice, slice],
    ) -> NDArray[np.uint8]:
        """As `PairStudent` says."""
        codes = np.zeros((3, len(sections) - 1, *sections[0][area].shape), np.uint8)
        before: Stem | None = None
        for z in range(1, len(sections)):
            if blank[z]:
                before = None
                continue
            before = before or self.stem(sections[z - 1])
            here = self.stem(sections[z])
            codes[:, z - 1] = self.codes(before, here, window, area)
            before = here
        return codes

    def stem(self, section: NDArray[np.uint8]) -> Stem:
        """Features of one section; its partner has no part in them.

        Parameters
        ----------
        section : uint8, shape (Y, X)
        """
        height, width = section.shape
        values = torch.from_numpy(np.ascontiguousarray(section)).float()
        # With one channel every layout looks like channels first, unless the strides say otherwise.
        values = values.as_strided((1, 1, height, width), (height * width, 1, width, 1))
        full = self._block("inc", values).to(self.dtype)
        half = self._block("down.0", F.max_pool2d(full, 2))
        return Stem(full, half, F.max_pool2d(half, 2))

    def codes(
        self, before: Stem, here: Stem, window: Window, area: tuple[slice, slice]
    ) -> NDArray[np.uint8]:
        """Affinity codes of the later section inside an area, shape (3, Y, X)."""
        first, second = (as_array(e)[:, *area] for e in self.decode(before, here, window))
        return pair_codes(first, second)

    def decode(self, before: Stem, here: Stem, window: Window) -> tuple[Tensor, Tensor]:
        """Embeddings of both sections of a pair from their stems.

        Returns
        -------
        before, here : Tensor, ``dtype``, shape (embedding, Y, X)
            Not normalised, contiguous.
        """
        windows = [window]  # windows[k] is that of level k
        for _ in range(4):
            windows.append(windows[-1].halved())
        first, second = decode_pair(
            before, here, self._block, lambda skip, deep, level: join(skip, deep, windows[level])
        )
        return self._project("t", first), self._project("tn", second)

    def _block(self, name: str, features: Tensor) -> Tensor:
        for weight, bias in self._blocks[name]:
            if features.dtype == torch.bfloat16:
                features = _mixed_convolution(features, weight, bias)
            else:
                features = F.relu_(F.conv2d(features, weight, bias, padding=1))
        return features

    def _project(self, head: str, features: Tensor) -> Tensor:
        """The last convolution, 1x1, as a product of matrices: channels come out first."""
        weight, bias = self._out[head]
        _, channels, height, width = features.shape
        pixels = features.permute(0, 2, 3, 1).reshape(-1, channels)
        return torch.addmm(bias, weight, pixels.T).view(-1, height, width)


def decode_pair(
    before: Stem,
    here: Stem,
    block: Callable[[str, Tensor], Tensor],
    join: Callable[[Tensor, Tensor, int], Tensor],
) -> tuple[Tensor, Tensor]:
    """What the heads of both sections of a pair give to their last convolution.

    Parameters
    ----------
    block : callable
        A block's convolutions, by its name.
    join : callable
        Channels of a skip, and those of deeper features upsampled, which are of some level.
    """
    quarter = block("down.1", torch.cat([before.quarter, here.quarter], 1))
    eighth = block("down.2", F.max_pool2d(quarter, 2))
    deepest = block("down.3", F.max_pool2d(eighth, 2))
    trunk = block("up1", join(eighth, deepest, 4))
    trunk = block("up2", join(quarter, trunk, 3))
    decoded = []
    for stem, head in ((before, "t"), (here, "tn")):
        # Upsampling the trunk for each head reads less than storing what was upsampled.
        inner = block(f"up3_{head}", join(stem.half, trunk, 2))
        decoded.append(block(f"up4_{head}", join(stem.full, inner, 1)))
    return decoded[0], decoded[1]


def fold_blocks(network: Student, dtype: torch.dtype) -> dict[str, list[Weights]]:
    """Folded convolutions of each block by its name; the first block takes uint8, in float32."""
    blocks = {
        name: [fold(block[i], block[i + 1], dtype) for i in (0, 3)]
        for name, block in network.named_modules()
        if isinstance(block, DoubleConv)
    }
    blocks["inc"] = [
        fold(network.inc[0], network.inc[1], torch.float32, white=255),
        fold(network.inc[3], network.inc[4], torch.float32),
    ]
    return blocks


def fold(conv: nn.Module, norm: nn.Module | None, dtype: torch.dtype, white: int = 1) -> Weights:
    """Weight and bias of a convolution, and of a batch normalisation behind it in evaluation mode.

    Computed in float64 and rounded once: the weight, channels last, to ``dtype``, the bias to
    float32. ``white`` is what the input holds where the network expects 1.
    """
    assert isinstance(conv, nn.Conv2d | nn.Conv3d)
    weight, bias = conv.weight.detach(), conv.bias
    bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    if white != 1:
        weight = weight.double() / white
    if norm is not None:
        scale, shift = scale_and_shift(norm)
        weight = weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))
        bias = bias.double() * scale + shift
    layout = torch.channels_last if weight.ndim == 4 else torch.channels_last_3d
    return weight.to(dtype).contiguous(memory_format=layout), bias.float()


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a batch normalisation in evaluation mode multiplies by and then adds, float64."""
    assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
    parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    weight, bias, mean, variance = (cast(Tensor, p).detach().double() for p in parts)
    scale = weight / torch.sqrt(variance + norm.eps)
    return scale, bias - mean * scale


def _mixed_convolution(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3x3 convolution and ReLU of bfloat16 with a float32 bias, which ``conv2d`` refuses.

    The operator is the one that inductor uses; a profile has bfloat16 only where it is there.
    """
    convolve = torch.ops.mkldnn._convolution_pointwise
    result: Tensor = convolve(features, weight, bias, [1, 1], [1, 1], [1, 1], 1, "relu", [], "")
    return result


def join(skip: Tensor, deep: Tensor, window: Window) -> Tensor:
    """Channels of the skip and of the deeper features upsampled; ``window`` is the latter's."""
    _, channels, height, width = skip.shape
    joined = torch.empty(
        (1, channels + deep.shape[1], height, width),
        dtype=skip.dtype,
        memory_format=torch.channels_last,
    )
    join_upsampled(_rows(skip), _rows(deep), window.origin, window.section, _rows(joined))
    return joined


def _rows(features: Tensor) -> NDArray[Any]:
    """The same memory as an array of shape (Y, X, C)."""
    return as_array(features[0].permute(1, 2, 0))


def as_array(tensor: Tensor) -> NDArray[Any]:
    """The same memory as an array: float32, or uint16 for bfloat16, which NumPy lacks."""
    bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    array: NDArray[Any] = bits.numpy()
    return array
