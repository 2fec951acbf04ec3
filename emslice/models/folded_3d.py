"""The 3D networks as they are run on processors: the same functions, in fewer passes.

Batch normalisation is part of the convolution before it or of the addition behind it, features lie
channels last, and the convolution that narrows is done before upsampling, not after. In bfloat16
weights and features are stored so; sums, biases, and the first convolution are in float32, as in
the student (docs/design/0012-precision.md).
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from emslice.models.folded import Weights, as_array, fold, scale_and_shift
from emslice.models.mala import SLOPE, Mala, inside
from emslice.models.networks import VolumeNetwork
from emslice.models.superhuman import ResidualBlock, Superhuman
from emslice.ops.elu import add_elu, elu
from emslice.ops.upsample import add_upsampled


class FoldedVolume(Protocol):
    """A 3D network on a processor."""

    dtype: torch.dtype
    last: nn.Conv3d
    """The convolution that makes the outputs, 1x1x1."""

    def features(self, volume: NDArray[np.uint8]) -> Tensor:
        """What the last convolution is applied to, shape (1, C, Z, Y, X), channels last."""


def fold_volume(network: VolumeNetwork, dtype: torch.dtype) -> FoldedVolume:
    """The folded twin of a 3D network, which is not changed."""
    if isinstance(network, Superhuman):
        return FoldedSuperhuman(network, dtype)
    return FoldedMala(network, dtype)


def outputs_of(folded: FoldedVolume, volume: NDArray[np.uint8], as_float: bool) -> Tensor:
    """Outputs of a network before a sigmoid, shape (outputs, Z, Y, X), contiguous.

    ``as_float`` computes the last convolution in float32 whatever the features are stored in.
    """
    features = folded.features(volume)
    dtype = torch.float32 if as_float else folded.dtype
    weight, bias = folded.last.weight.detach(), folded.last.bias
    assert bias is not None
    _, channels, *shape = features.shape
    pixels = features.permute(0, 2, 3, 4, 1).reshape(-1, channels).to(dtype)
    product = torch.addmm(
        bias.detach()[:, None].to(dtype), weight[:, :, 0, 0, 0].to(dtype), pixels.T
    )
    return product.view(-1, *shape)


def _as_volume(volume: NDArray[np.uint8]) -> Tensor:
    """Float tensor of shape (1, 1, Z, Y, X) that says that it lies channels last."""
    z, y, x = volume.shape
    values = torch.from_numpy(np.ascontiguousarray(volume)).float()
    return values.as_strided((1, 1, z, y, x), (z * y * x, 1, y * x, x, 1))


def _convolve(
    features: Tensor, weights: Weights, slope: float | None = None, pad: bool = True
) -> Tensor:
    """Convolution with a float32 bias; a leaky ReLU of some slope behind it, or nothing.

    The operator is the one that inductor uses; a profile has bfloat16 only where it is there.
    """
    weight, bias = weights
    padding = [k // 2 if pad else 0 for k in weight.shape[2:]]
    if hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        name, scalars = ("none", []) if slope is None else ("leaky_relu", [slope])
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            features, weight, bias, padding, [1, 1, 1], [1, 1, 1], 1, name, scalars, ""
        )
        return result
    result = F.conv3d(features, weight, bias, padding=padding)
    return result if slope is None else F.leaky_relu_(result, slope)


def _flat(features: Tensor) -> NDArray[Any]:
    """The same memory as an array of shape (N, C)."""
    return as_array(features[0].permute(1, 2, 3, 0).reshape(-1, features.shape[1]))


def _elu(features: Tensor) -> Tensor:
    elu(_flat(features).reshape(-1))
    return features


class _Block:
    """A residual block; the last normalisation is in the second branch's weights and ``scale``."""

    def __init__(self, block: ResidualBlock, dtype: torch.dtype) -> None:
        self._first = fold(block.block1[0], block.block1[1], dtype)
        self._second = fold(block.block2[0], block.block2[1], dtype)
        self._third = fold(block.block2[3], block.block3, dtype)
        self._scale = scale_and_shift(block.block3)[0].float().numpy()

    def __call__(self, features: Tensor) -> Tensor:
        first = _elu(_convolve(features, self._first))
        total = _convolve(_elu(_convolve(first, self._second)), self._third)
        add_elu(_flat(total), _flat(first), self._scale)
        return total


class _Widening:
    """Upsampling, narrowing, the sum or concatenation with the encoder, and ELU."""

    def __init__(self, network: Superhuman, step: int, dtype: torch.dtype) -> None:
        up = network.get_submodule(f"up{step}")
        wider, narrow = up[0], up[1]  # type: ignore[index]
        scale, shift = scale_and_shift(network.get_submodule(f"cat{step}")[0])  # type: ignore[index]
        width = narrow.weight.shape[0]
        weight, bias = narrow.weight.detach().double(), narrow.bias.detach().double()
        weight = weight * scale[:width].view(-1, 1, 1, 1, 1)
        bias = bias * scale[:width] + shift[:width]
        self._spread: tuple[int, int] | None = None
        if isinstance(wider, nn.ConvTranspose3d):
            bias = bias + weight[..., 0, 0, 0] @ wider.bias.detach().double()  # type: ignore[union-attr]
            weight, bias, self._spread = _spread(wider, weight, bias)
        layout = torch.channels_last_3d
        self._narrow = weight.to(dtype).contiguous(memory_format=layout), bias.float()
        self._cat = network.merge == "cat"
        self._scale = scale[-width:].float()
        self._shift = shift[-width:].float()

    def __call__(self, features: Tensor, skip: Tensor) -> Tensor:
        narrow = _convolve(features, self._narrow)
        if self._spread is None and not self._cat:
            total = torch.empty_like(skip, memory_format=torch.channels_last_3d)
            maps = [_sections(features) for features in (skip, narrow, total)]
            add_upsampled(maps[0], self._scale.numpy(), maps[1], maps[2])
            return _elu(total)
        if self._spread is None:
            size = (narrow.shape[2], *skip.shape[3:])
            above = F.interpolate(narrow, size=size, mode="trilinear", align_corners=True)
        else:
            above = _shuffle(narrow, self._spread)
        scaled = skip * self._scale.to(skip.dtype).view(-1, 1, 1, 1)
        if self._cat:
            scaled = scaled + self._shift.to(skip.dtype).view(-1, 1, 1, 1)
            merged = torch.cat([above, scaled], 1)
        else:
            merged = above + scaled
        return _elu(merged.contiguous(memory_format=torch.channels_last_3d))


def _spread(
    wider: nn.ConvTranspose3d, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """A transposed convolution of each channel, then a 1x1x1 one, as a single 1x1x1 convolution.

    Its outputs are those of every place (y, x) inside a voxel of the input, the channels of the
    first place first.
    """
    tall, wide = wider.weight.shape[3:]
    each = wider.weight.detach().double()[:, 0, 0]  # (C, y, x)
    product = weight[None, None, :, :, 0, 0, 0] * each.permute(1, 2, 0)[:, :, None]  # (y, x, O, C)
    product = product.reshape(-1, product.shape[-1], 1, 1, 1)
    return product, bias.repeat(tall * wide), (tall, wide)


def _shuffle(features: Tensor, places: tuple[int, int]) -> Tensor:
    """Every place inside a voxel to a voxel of its own."""
    (tall, wide), (_, channels, z, y, x) = places, features.shape
    channels //= tall * wide
    parts = features[0].permute(1, 2, 3, 0).reshape(z, y, x, tall, wide, channels)
    spread = parts.permute(0, 1, 3, 2, 4, 5).reshape(z, y * tall, x * wide, channels)
    return spread.permute(3, 0, 1, 2)[None]


def _sections(features: Tensor) -> NDArray[Any]:
    """The same memory as an array of shape (Z, Y, X, C)."""
    return as_array(features[0].permute(1, 2, 3, 0))


class FoldedSuperhuman:
    """Superhuman and its relatives."""

    def __init__(self, network: Superhuman, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.last = cast(nn.Conv3d, network.out_put[0])
        self._depth = network.depth
        self._in = fold(network.embed_in[0], None, torch.float32, white=255)
        self._out = fold(network.embed_out[0], None, dtype)
        self._blocks = {
            name: _Block(block, dtype)
            for name, block in network.named_children()
            if isinstance(block, ResidualBlock)
        }
        self._up = [_Widening(network, step, dtype) for step in range(network.depth)]

    def features(self, volume: NDArray[np.uint8]) -> Tensor:
        features = _elu(_convolve(_as_volume(volume), self._in)).to(self.dtype)
        skips = []
        for level in range(self._depth):
            skips.append(self._blocks[f"conv{level}"](features))
            features = F.max_pool3d(skips[-1], (1, 2, 2))
        features = self._blocks["center"](features)
        for step in range(self._depth):
            features = self._up[step](features, skips.pop())
            features = self._blocks[f"conv{4 + step}"](features)
        return _elu(_convolve(features, self._out))


class FoldedMala:
    """MALA."""

    def __init__(self, network: Mala, dtype: torch.dtype = torch.float32) -> None:
        self.dtype, self.last = dtype, network.conv18
        layers = dict(network.named_children())
        self._weights = {
            i: fold(layers[f"conv{i}"], None, dtype)
            for i in (2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 14, 16, 17)
        }
        self._weights[1] = fold(layers["conv1"], None, torch.float32, white=255)
        self._up = []
        for step, i in ((1, 9), (2, 12), (3, 15)):
            narrow, wider = layers[f"conv{i}"], layers[f"dconv{step}"]
            assert isinstance(narrow, nn.Conv3d)
            assert isinstance(wider, nn.ConvTranspose3d)
            assert narrow.bias is not None
            weight, bias = narrow.weight.detach().double(), narrow.bias.detach().double()
            weight, bias, places = _spread(wider, weight, bias)
            weight = weight.to(dtype).contiguous(memory_format=torch.channels_last_3d)
            self._up.append(((weight, bias.float()), places))

    def _pair(self, first: int, features: Tensor) -> Tensor:
        for i in (first, first + 1):
            weight, _ = self._weights[i]
            features = _convolve(features.to(weight.dtype), self._weights[i], SLOPE, pad=False)
        return features

    def features(self, volume: NDArray[np.uint8]) -> Tensor:
        features, skips = _as_volume(volume), []
        for first in (1, 3, 5):
            skips.append(self._pair(first, features))
            features = F.max_pool3d(skips[-1], (1, 3, 3))
        features = self._pair(7, features)
        for (weights, places), first in zip(self._up, (10, 13, 16), strict=True):
            above = _shuffle(_convolve(features, weights, pad=False), places)
            skip = inside(skips.pop(), above.shape)
            merged = torch.cat([above, skip], 1)
            merged = merged.contiguous(memory_format=torch.channels_last_3d)
            features = self._pair(first, merged)
        return features
