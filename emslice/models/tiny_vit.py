"""TinyViT, the image encoder of MobileSAM: convolutions at first, then attention in windows.

Written to the facts of TinyViT (ECCV 2022) and MobileSAM, for sections of any size that is a
multiple of 16: a window that reaches beyond the section is filled with zeros, as published.
Names of weights are those of the published file, without ``image_encoder.``.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZES: dict[str, dict[str, Any]] = {
    "tiny_vit_5m": {
        "widths": [64, 128, 160, 320], "blocks": [2, 2, 6, 2], "heads": [2, 4, 5, 10],
        "windows": [7, 7, 14, 7],
    },
}  # fmt: skip
"""Published sizes; the first stage has no attention, hence neither heads nor windows."""

TINY = {"widths": [4, 8, 8, 12], "blocks": [1, 1, 1, 1], "heads": [1, 2, 2, 3],
        "windows": [7, 7, 3, 7]}  # fmt: skip


class ConvNorm(nn.Sequential):
    """A convolution and a batch normalisation."""

    def __init__(
        self, inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        convolution = nn.Conv2d(
            inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False
        )
        self.add_module("c", convolution)
        self.add_module("bn", nn.BatchNorm2d(outputs))


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (B, C, Y, X)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Bottleneck(nn.Module):
    """Wider, convolved channel by channel, narrow again; added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width, 4 * width)
        self.conv2 = ConvNorm(4 * width, 4 * width, 3, groups=4 * width)
        self.conv3 = ConvNorm(4 * width, width)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        inner = F.gelu(self.conv2(F.gelu(self.conv1(features))))
        return F.gelu(features + self.conv3(inner))


class Downsampling(nn.Module):
    """Other channels, at half the resolution or the same."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs)
        self.conv2 = ConvNorm(outputs, outputs, 3, stride, groups=outputs)
        self.conv3 = ConvNorm(outputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Features with ``outputs`` channels."""
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(features)))))


class Attention(nn.Module):
    """Every place of a window sees all others; how far apart they are adds to the score."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))

    def forward(self, windows: Tensor) -> Tensor:
        """Values of the same shape, (N, window * window, width)."""
        n, places, width = windows.shape
        mixed = self.qkv(self.norm(windows)).view(n, places, self.heads, 3, -1)
        query, key, value = mixed.permute(3, 0, 2, 1, 4).unbind()
        near = torch.arange(self.window, device=windows.device)
        apart = (near[:, None] - near).abs()  # along one axis
        pairs = apart[:, None, :, None] * self.window + apart[None, :, None, :]
        scores = self.attention_biases[:, pairs.reshape(places, places)]
        seen = F.scaled_dot_product_attention(query, key, value, scores[None].to(query.dtype))
        return self.proj(seen.transpose(1, 2).reshape(n, places, width))


class Perceptron(nn.Module):
    """Normalisation and two linear layers, at every place by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, places: Tensor) -> Tensor:
        """Values of the same shape, (..., width)."""
        return self.fc2(F.gelu(self.fc1(self.norm(places))))


class WindowBlock(nn.Module):
    """Attention within windows, a convolution across them, a perceptron."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(width, heads, window)
        self.mlp = Perceptron(width)
        self.local_conv = ConvNorm(width, width, 3, groups=width)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        features = features + self._attend(features)
        places = self.local_conv(features).permute(0, 2, 3, 1)
        return (places + self.mlp(places)).permute(0, 3, 1, 2)

    def _attend(self, features: Tensor) -> Tensor:
        (b, width, height, length), side = features.shape, self.window
        padded = F.pad(features, (0, -length % side, 0, -height % side))
        rows, columns = padded.shape[2] // side, padded.shape[3] // side
        cut = padded.view(b, width, rows, side, columns, side).permute(0, 2, 4, 3, 5, 1)
        seen = self.attn(cut.reshape(-1, side * side, width))
        whole = seen.view(b, rows, columns, side, side, width).permute(0, 5, 1, 3, 2, 4)
        return whole.reshape(padded.shape)[:, :, :height, :length]


class Stage(nn.Module):
    """Blocks at one resolution, then the way to the next."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        """Features of the next stage's resolution and channels."""
        for block in self.blocks:
            features = block(features)
        return features if self.downsample is None else self.downsample(features)


class PatchEmbedding(nn.Module):
    """Colours to features at a quarter of the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvNorm(3, width // 2, 3, 2), nn.GELU(), ConvNorm(width // 2, width, 3, 2)
        )

    def forward(self, colours: Tensor) -> Tensor:
        """Features, shape (B, width, Y / 4, X / 4)."""
        return self.seq(colours)


class TinyVit(nn.Module):
    """Colours in, features of one sixteenth of the resolution out."""

    multiple: ClassVar[int] = 16

    def __init__(
        self,
        widths: list[int],
        blocks: list[int],
        heads: list[int],
        windows: list[int],
        channels: int = 256,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(widths[0])
        strides, stages = (2, 2, 1), []
        for level, width in enumerate(widths):
            last = level == len(widths) - 1
            down = None if last else Downsampling(width, widths[level + 1], strides[level])
            if level == 0:
                inner: list[nn.Module] = [Bottleneck(width) for _ in range(blocks[0])]
            else:
                shape = (width, heads[level], windows[level])
                inner = [WindowBlock(*shape) for _ in range(blocks[level])]
            stages.append(Stage(inner, down))
        self.layers = nn.ModuleList(stages)
        self.neck = nn.Sequential(
            nn.Conv2d(widths[-1], channels, 1, bias=False),
            ChannelNorm(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            ChannelNorm(channels),
        )

    def forward(self, colours: Tensor) -> Tensor:
        """Features, float, shape (B, channels, Y / 16, X / 16).

        Parameters
        ----------
        colours : Tensor, float, shape (B, 3, Y, X)
            Y and X multiples of 16.
        """
        features = self.patch_embed(colours)
        for stage in self.layers:
            features = stage(features)
        return self.neck(features)

    @staticmethod
    def rename(key: str) -> str | None:
        """Name of a published weight in this class; None: not of the encoder."""
        key, n = re.subn(r"^image_encoder\.", "", key)
        if not n or key.startswith(("head.", "norm_head.")):  # left from training on ImageNet
            return None
        return key
