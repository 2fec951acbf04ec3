"""What the student does around its convolutions, in PyTorch's own operators.

The slow twin of `kernels`, and what runs where there is no Triton.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from emslice.models.gpu.range import all_finite
from emslice.models.student import doubled
from emslice.ops.affinity import pair_affinity, quantise


class Shares(NamedTuple):
    """Of its neighbour in each doubled sample, float32: rows of a map, then columns.

    ``back`` is the share of the sample before in even places, ``ahead`` that of the sample behind
    in odd ones (`student.shares_along`).
    """

    back_y: Tensor
    ahead_y: Tensor
    back_x: Tensor
    ahead_x: Tensor


class Head(NamedTuple):
    """The end of a decoder: a 3x3 convolution with ReLU, and one of a single pixel."""

    weight: Tensor
    """Shape (C, C, 3, 3)."""

    bias: Tensor
    """float32, shape (C,)."""

    out: Tensor
    """Shape (E, C)."""

    shift: Tensor
    """float32, shape (E,)."""


Heads = tuple[Head, Head]
"""Of the section before and of the later one."""


class Answer(NamedTuple):
    """Where a pair's codes go."""

    area: Tensor
    """int32, shape (4,): first row and column, rows and columns of the part that is wanted."""

    codes: Tensor
    """uint8, shape (3, Y, X), written at ``[:, :rows, :columns]``; those of the first row to the
    row before, and of the first column, mean nothing."""

    finite: Tensor
    """uint8, shape (1,), set to 0 if an embedding of the area has a number that is not finite."""


class Operators(Protocol):
    """Features have the shape (1, C, Y, X) and lie channels last."""

    recorded: bool
    """Whether a pair of sections can be recorded as one CUDA graph: nothing asks the device."""

    def convolve(
        self, features: Tensor, weight: Tensor, bias: Tensor, out: Tensor | None = None
    ) -> Tensor:
        """3x3 convolution, bias (float32) and ReLU; ``out`` may have another type."""

    def join(self, skip: Tensor, deep: Tensor, shares: Shares) -> Tensor:
        """Channels of the skip, then those of the deeper features at twice the resolution."""

    def finish(self, before: Tensor, here: Tensor, heads: Heads, answer: Answer) -> None:
        """Write codes of the later section of a pair.

        Parameters
        ----------
        before, here : Tensor, shape (1, C, Y, X)
            What the last 3x3 convolution of each head takes.
        """


class PlainOperators:
    """As they come, one pass over memory for each."""

    recorded = False

    def convolve(
        self, features: Tensor, weight: Tensor, bias: Tensor, out: Tensor | None = None
    ) -> Tensor:
        found = F.relu_(F.conv2d(features, weight, bias.to(weight.dtype), padding=1))
        return found if out is None else out.copy_(found)

    def join(self, skip: Tensor, deep: Tensor, shares: Shares) -> Tensor:
        tall = doubled(deep, 2, shares.back_y, shares.ahead_y)
        wide = doubled(tall, 3, shares.back_x, shares.ahead_x)
        return torch.cat([skip, wide.contiguous(memory_format=torch.channels_last)], 1)

    def finish(self, before: Tensor, here: Tensor, heads: Heads, answer: Answer) -> None:
        y, x, rows, columns = answer.area.tolist()
        first, second = (
            self._embed(features, head)[0, :, y : y + rows, x : x + columns].float()
            for features, head in zip((before, here), heads, strict=True)
        )
        answer.finite.logical_and_(all_finite(first) & all_finite(second))
        answer.codes[:, :rows, :columns] = quantise(pair_affinity(first, second))

    def _embed(self, features: Tensor, head: Head) -> Tensor:
        features = self.convolve(features, head.weight, head.bias)
        return F.conv2d(features, head.out[:, :, None, None], head.shift.to(features.dtype))
