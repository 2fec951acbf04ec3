"""What the student does around its convolutions, each in one pass over memory (Triton).

Arithmetic is float32 whatever is stored, rounded once. Nothing is contracted but the products of
matrices: a value depends on its own neighbourhood alone, never on the shape of the tile for which
a kernel was compiled. A graph of a tile shape serves every tile, so what depends on a tile's place
(shares, area) is read from the device. Masks are of whole pixels: where one might cut through the
channels of a pixel, Triton would read and write them one by one.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from emslice.models.gpu.operators import Answer, Heads, Shares

PIXELS = 64
"""That one program takes, with all their channels; of many channels half, lest registers spill."""

MANY = 64

LEAST = 16
"""Channels of a matrix that the units for products take."""

EXACT: dict[str, Any] = {"enable_fp_fusion": False}


class TritonOperators:
    """As `Operators` says."""

    recorded = True

    def convolve(
        self, features: Tensor, weight: Tensor, bias: Tensor, out: Tensor | None = None
    ) -> Tensor:
        found = _convolution(features, weight)
        out = found if out is None else out
        _, channels, height, width = found.shape
        block = _block(channels)
        _activate[(triton.cdiv(height * width, block),)](
            found, bias, out, height * width,
            CHANNELS=channels, PADDED=triton.next_power_of_2(channels), BLOCK=block, **EXACT,
        )  # fmt: skip
        return out

    def join(self, skip: Tensor, deep: Tensor, shares: Shares) -> Tensor:
        skip, deep = (t.contiguous(memory_format=torch.channels_last) for t in (skip, deep))
        _, beside, height, width = skip.shape
        channels = deep.shape[1]
        joined = torch.empty(
            (1, beside + channels, height, width),
            dtype=skip.dtype,
            device=skip.device,
            memory_format=torch.channels_last,
        )
        block = _block(max(beside, channels))
        _join[(triton.cdiv(height * width, block),)](
            skip, deep, *shares, joined, height // 2, width // 2,
            SKIP=beside, SKIP_PADDED=triton.next_power_of_2(beside),
            DEEP=channels, DEEP_PADDED=triton.next_power_of_2(channels), BLOCK=block, **EXACT,
        )  # fmt: skip
        return joined

    def finish(self, before: Tensor, here: Tensor, heads: Heads, answer: Answer) -> None:
        first, second = (
            _convolution(features, head.weight)
            for features, head in zip((before, here), heads, strict=True)
        )
        _, channels, height, width = second.shape
        length = len(heads[0].out)
        block = _block(channels)
        _finish[(triton.cdiv(height * width, block),)](
            first, *heads[0][1:], second, *heads[1][1:], *answer, height, width,
            CHANNELS=channels, PADDED=max(LEAST, triton.next_power_of_2(channels)),
            LENGTH=length, LENGTH_PADDED=max(LEAST, triton.next_power_of_2(length)),
            BLOCK=block, **EXACT,
        )  # fmt: skip


def _block(channels: int) -> int:
    return PIXELS if channels <= MANY else PIXELS // 2


def _convolution(features: Tensor, weight: Tensor) -> Tensor:
    found = torch.nn.functional.conv2d(features, weight, padding=1)
    return found.contiguous(memory_format=torch.channels_last)  # cuDNN's is, as a rule


@triton.jit(do_not_specialize=["n"])
def _activate(
    values, bias, out, n, CHANNELS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    at, c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PADDED)
    known = (at < n)[:, None] & (c < CHANNELS)[None]
    place = at.to(tl.int64)[:, None] * CHANNELS + c[None]
    value = tl.load(values + place, mask=known).to(tl.float32)
    value += tl.load(bias + c, mask=c < CHANNELS)[None]
    value = tl.where(value < 0, 0.0, value)  # NaN stays: it must be seen at the end
    tl.store(out + place, value.to(out.dtype.element_ty), mask=known)


@triton.jit(do_not_specialize=["height", "width"])
def _join(
    skip, deep, back_y, ahead_y, back_x, ahead_x, joined, height, width,
    SKIP: tl.constexpr, SKIP_PADDED: tl.constexpr,
    DEEP: tl.constexpr, DEEP_PADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``height`` and ``width`` are those of ``deep``."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < 4 * height * width
    y, x = at // (2 * width), at % (2 * width)
    other_y, share_y = _neighbour(y, back_y, ahead_y, height, inside)
    other_x, share_x = _neighbour(x, back_x, ahead_x, width, inside)
    y, x = y // 2, x // 2
    c = tl.arange(0, DEEP_PADDED)
    known = inside[:, None] & (c < DEEP)[None]
    near = _between(deep, y, other_y, x, share_y, width, c, known, DEEP)
    far = _between(deep, y, other_y, other_x, share_y, width, c, known, DEEP)
    value = near + share_x[:, None] * (far - near)
    at = at.to(tl.int64)  # with channels it may leave 32 bits; 64 are slow to divide
    place = joined + at[:, None] * (SKIP + DEEP)
    tl.store(place + SKIP + c[None], value.to(joined.dtype.element_ty), mask=known)
    c = tl.arange(0, SKIP_PADDED)
    known = inside[:, None] & (c < SKIP)[None]
    tl.store(place + c[None], tl.load(skip + at[:, None] * SKIP + c[None], mask=known), mask=known)


@triton.jit
def _neighbour(at, back, ahead, n, inside):
    """The sample that a doubled sample lies towards, and how near."""
    sample, odd = at // 2, at % 2 == 1
    other = tl.where(odd, tl.minimum(sample + 1, n - 1), tl.maximum(sample - 1, 0))
    before = tl.load(back + sample, mask=inside, other=0.0)
    behind = tl.load(ahead + sample, mask=inside, other=0.0)
    return other, tl.where(odd, behind, before)


@triton.jit
def _between(deep, y, other_y, x, share, width, c, known, DEEP: tl.constexpr):
    """Of two rows of a column."""
    near = (y * width + x).to(tl.int64)[:, None] * DEEP + c[None]
    far = (other_y * width + x).to(tl.int64)[:, None] * DEEP + c[None]
    near = tl.load(deep + near, mask=known, other=0.0).to(tl.float32)
    far = tl.load(deep + far, mask=known, other=0.0).to(tl.float32)
    return near + share[:, None] * (far - near)


@triton.jit(do_not_specialize=["height", "width"])
def _finish(
    before, before_bias, before_out, before_shift, here, bias, out, shift,
    area, codes, finite, height, width,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr,
    LENGTH: tl.constexpr, LENGTH_PADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Both sections' last convolutions, without bias, to codes: no embedding is stored."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, x = at // width, at % width
    top, left, rows, columns = (
        tl.load(area), tl.load(area + 1), tl.load(area + 2), tl.load(area + 3),
    )  # fmt: skip
    inside = (y < rows) & (x < columns)
    place = (top + y) * width + left + x
    size: tl.constexpr = (CHANNELS, PADDED, LENGTH, LENGTH_PADDED)
    last = _unit(before, before_bias, before_out, before_shift, place, inside, size)
    unit = _unit(here, bias, out, shift, place, inside, size)
    up = _unit(here, bias, out, shift, place - width, inside & (y > 0), size)
    left_of = _unit(here, bias, out, shift, place - 1, inside & (x > 0), size)
    along_z = tl.sum(last * unit, 1)
    plane = height.to(tl.int64) * width
    _store(codes, at, along_z, inside)
    _store(codes + plane, at, tl.sum(unit * up, 1), inside)
    _store(codes + 2 * plane, at, tl.sum(unit * left_of, 1), inside)
    # A number that is not finite makes a NaN of its embedding's every product.
    bad = inside & (along_z != along_z)
    tl.store(finite, 0, mask=tl.sum(bad.to(tl.int32), 0) > 0)


@triton.jit
def _unit(values, bias, out, shift, place, known, size: tl.constexpr):
    """Embeddings of length 1, shape (BLOCK, LENGTH_PADDED)."""
    CHANNELS: tl.constexpr = size[0]
    LENGTH: tl.constexpr = size[2]
    c, e = tl.arange(0, size[1]), tl.arange(0, size[3])
    known = known[:, None] & (c < CHANNELS)[None]
    place = place.to(tl.int64)[:, None] * CHANNELS + c[None]
    features = tl.load(values + place, mask=known, other=0.0).to(tl.float32)
    features += tl.load(bias + c, mask=c < CHANNELS, other=0.0)[None]
    features = tl.where(features < 0, 0.0, features)
    in_out = (c < CHANNELS)[:, None] & (e < LENGTH)[None]
    weight = tl.load(out + e[None] * CHANNELS + c[:, None], mask=in_out, other=0.0)
    embedding = tl.dot(features.to(weight.dtype), weight, input_precision="ieee")
    embedding += tl.load(shift + e, mask=e < LENGTH, other=0.0)[None]
    return embedding / tl.maximum(tl.sqrt(tl.sum(embedding * embedding, 1)), 1e-12)[:, None]


@triton.jit
def _store(codes, at, cosine, inside):
    code = tl.minimum(tl.maximum(cosine, 0.0) * 256, 255.0)  # as `quantise`
    tl.store(codes + at, code.to(tl.int32).to(tl.uint8), mask=inside)
