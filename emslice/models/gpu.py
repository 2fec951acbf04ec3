"""The student on a GPU: a run of sections in, codes out, copies beside the network.

The same folded function as on processors (`folded`), written with PyTorch's own operators. Only raw
and codes cross the bus, 1 and 3 bytes a voxel, through pinned buffers that take turns: while a pair
is in the network, the section after it comes and the codes before it go. What a run has on the
device does not depend on its length, so there is nothing to shorten when memory is scarce.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from emslice.errors import PrecisionError
from emslice.models.folded import fold_blocks
from emslice.models.student import Student, Window
from emslice.ops.affinity import pair_affinity, quantise

RING = 3
"""Buffers of each direction: one is filled, one is copied, one is read."""

Shares = tuple[Tensor, ...]
"""Of the sample before and of the one behind, along one axis."""


class Features(NamedTuple):
    """Of one section, shape (1, C, Y, X), channels last."""

    full: Tensor
    half: Tensor
    quarter: Tensor
    """``half``, pooled: what the trunk sees."""


@contextmanager
def same_kernels() -> Iterator[None]:
    """Let cuDNN choose kernels by shape alone, none that add in any order, and no TF32."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before


class GpuStudent:
    """Codes of runs of sections.

    Parameters
    ----------
    network : Student
        In evaluation mode; it is not changed.
    dtype : torch.dtype
        Of weights and features: float32, bfloat16 or float16. The first block stays in float32
        (docs/design/0012-precision.md).
    device : str
        ``cuda``; on ``cpu`` the same operators run one after the other.
    """

    def __init__(self, network: Student, dtype: torch.dtype, device: str = "cuda") -> None:
        self._dtype, self._device = dtype, torch.device(device)
        self._blocks = {
            name: [(w.to(device), b.to(device, w.dtype)) for w, b in weights]
            for name, weights in fold_blocks(network, dtype).items()
        }
        self._out = {
            name: (layer.weight.detach().to(device, dtype), cast(Tensor, layer.bias).to(device))
            for name, layer in (("t", network.outc_t), ("tn", network.outc_tn))
        }
        self._shares: dict[tuple[int, int, int], Shares] = {}

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
        finite = torch.ones((), dtype=torch.bool, device=self._device)
        inner = sections[0][area].shape
        codes = np.zeros((3, len(sections) - 1, *inner), np.uint8)
        wanted = [z for z in range(1, len(sections)) if not blank[z]]
        comes, goes = _Upload(self._device, sections.shape[1:]), _Download(self._device, codes)
        with same_kernels():
            before: Features | None = None
            for z in wanted:
                if before is None:
                    before = self.stem(comes.take(sections[z - 1]))
                here = self.stem(comes.take(sections[z]))
                first, second = self.decode(before, here, window)
                finite &= all_finite(first) & all_finite(second)  # looked at once, at the end
                goes.put(z - 1, self.compare(first, second, area))
                before = here if z + 1 < len(sections) and not blank[z + 1] else None
            goes.finish()
        if not finite:
            raise PrecisionError(out_of_range(self._dtype))
        return codes

    def stem(self, section: Tensor) -> Features:
        """Features of one section on the device, uint8, shape (Y, X)."""
        values = section.float()[None, None].contiguous(memory_format=torch.channels_last)
        full = self._block("inc", values).to(self._dtype)
        half = self._block("down.0", F.max_pool2d(full, 2))
        return Features(full, half, F.max_pool2d(half, 2))

    def decode(self, before: Features, here: Features, window: Window) -> tuple[Tensor, Tensor]:
        """Embeddings of both sections of a pair, shape (embedding, Y, X); not normalised."""
        windows = [window]  # windows[k] is that of level k
        for _ in range(4):
            windows.append(windows[-1].halved())
        quarter = self._block("down.1", torch.cat([before.quarter, here.quarter], 1))
        eighth = self._block("down.2", F.max_pool2d(quarter, 2))
        deepest = self._block("down.3", F.max_pool2d(eighth, 2))
        trunk = self._block("up1", self._join(eighth, deepest, windows[4]))
        trunk = self._block("up2", self._join(quarter, trunk, windows[3]))
        trunk = self._doubled(trunk, windows[2])  # the same for both heads
        embeddings = []
        for features, head in ((before, "t"), (here, "tn")):
            inner = self._block(f"up3_{head}", torch.cat([features.half, trunk], 1))
            outer = self._block(f"up4_{head}", self._join(features.full, inner, windows[1]))
            weight, bias = self._out[head]
            embeddings.append(F.conv2d(outer, weight, bias.to(outer.dtype))[0])
        return embeddings[0], embeddings[1]

    def compare(self, before: Tensor, here: Tensor, area: tuple[slice, slice]) -> Tensor:
        """Codes of the later section inside an area, uint8, shape (3, Y, X)."""
        first, second = (embedding[:, *area].float() for embedding in (before, here))
        return quantise(pair_affinity(first, second))

    def _block(self, name: str, features: Tensor) -> Tensor:
        for weight, bias in self._blocks[name]:
            features = F.relu_(F.conv2d(features, weight, bias, padding=1))
        return features

    def _join(self, skip: Tensor, deep: Tensor, window: Window) -> Tensor:
        return torch.cat([skip, self._doubled(deep, window)], 1)

    def _doubled(self, features: Tensor, window: Window) -> Tensor:
        """As `student.upsample`, with shares that are computed once."""
        for axis, origin, length in zip((2, 3), window.origin, window.section, strict=True):
            back, ahead = self._shares_of(features.shape[axis], origin, length)
            shape = [1, 1, 1, 1]
            shape[axis] = -1
            n = features.shape[axis]
            before = torch.cat([features.narrow(axis, 0, 1), features.narrow(axis, 0, n - 1)], axis)
            behind = torch.cat(
                [features.narrow(axis, 1, n - 1), features.narrow(axis, n - 1, 1)], axis
            )
            even = torch.lerp(features, before, back.view(shape))
            odd = torch.lerp(features, behind, ahead.view(shape))
            features = torch.stack([even, odd], axis + 1).flatten(axis, axis + 1)
        return features.contiguous(memory_format=torch.channels_last)

    def _shares_of(self, n: int, origin: int, length: int) -> Shares:
        """A few short vectors for each row and column of tiles; threads may find them twice."""
        found = self._shares.get((n, origin, length))
        if found is None:
            m = torch.arange(origin, origin + n, dtype=torch.float64)
            back, ahead = m / (2 * length - 1), (length - 1 - m) / (2 * length - 1)
            found = tuple(share.to(self._device, self._dtype) for share in (back, ahead))
            self._shares[n, origin, length] = found
        return found


def all_finite(values: Tensor) -> Tensor:
    """Whether no value is NaN or infinite; extremes cannot overflow, as sums could."""
    low, high = torch.aminmax(values)
    return low.isfinite() & high.isfinite()


def out_of_range(dtype: torch.dtype) -> str:
    """What to say of values that are not finite."""
    return (
        f"predict.precision: features of this network leave the range of {dtype} (largest "
        f"{torch.finfo(dtype).max:g}) on this raw. Take bfloat16 or float32."
    )


class _Ring:
    """Buffers on the host that take turns, and a stream of its own for copies."""

    def __init__(self, device: torch.device, shape: tuple[int, ...]) -> None:
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._hosts = [
            torch.empty(shape, dtype=torch.uint8, pin_memory=self._on_gpu) for _ in range(RING)
        ]
        self._stream: Any = torch.cuda.Stream(device) if self._on_gpu else None


class _Upload(_Ring):
    """Sections on their way to the device."""

    def __init__(self, device: torch.device, shape: tuple[int, ...]) -> None:
        super().__init__(device, shape)
        self._copied: list[Any] = [None] * RING
        self._n = 0

    def take(self, section: NDArray[np.uint8]) -> Tensor:
        """A section on the device, for what the current stream does from now on."""
        slot = self._n % RING
        self._n += 1
        host, source = self._hosts[slot], torch.from_numpy(np.ascontiguousarray(section))
        if not self._on_gpu:
            return source
        if self._copied[slot] is not None:
            self._copied[slot].synchronize()  # it was read by a copy that may not be over
        host.copy_(source)
        with torch.cuda.stream(self._stream):
            there = host.to(self._device, non_blocking=True)
        self._copied[slot] = self._stream.record_event()
        current = torch.cuda.current_stream(self._device)
        current.wait_event(self._copied[slot])
        there.record_stream(current)  # else its memory might be given away too early
        return there


class _Download(_Ring):
    """Codes on their way to an array of shape (3, Z, Y, X)."""

    def __init__(self, device: torch.device, target: NDArray[np.uint8]) -> None:
        super().__init__(device, (3, *target.shape[2:]))
        self._target = target
        self._going: deque[tuple[int, int, Any]] = deque()
        self._n = 0

    def put(self, z: int, codes: Tensor) -> None:
        """Send codes of a section, shape (3, Y, X), for which some wait for those before."""
        if not self._on_gpu:
            self._target[:, z] = codes.numpy()
            return
        if len(self._going) == RING:
            self._land()
        slot = self._n % RING
        self._n += 1
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            self._hosts[slot].copy_(codes, non_blocking=True)
        codes.record_stream(self._stream)
        self._going.append((z, slot, self._stream.record_event()))

    def finish(self) -> None:
        """Wait for all of them."""
        while self._going:
            self._land()

    def _land(self) -> None:
        z, slot, copied = self._going.popleft()
        copied.synchronize()
        self._target[:, z] = self._hosts[slot].numpy()
