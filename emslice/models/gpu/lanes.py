"""Memory of fixed addresses for tiles of one shape, and the work on a pair recorded once.

A pair is some 60 kernels of a few microseconds each. Recorded as a CUDA graph they are one launch,
and the interpreter, which several tasks share, is out of the way. A graph reads and writes where it
did when it was recorded; so all that changes from pair to pair lies in a lane: raw of the section,
features of both sections by turns, shares and area of the tile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from emslice.models.gpu.network import GpuNetwork
from emslice.models.gpu.operators import Answer, Shares
from emslice.models.gpu.recording import alone, record
from emslice.models.gpu.transfers import Download, Upload
from emslice.models.student import Window, shares_along
from emslice.ops.pair_codes import repeat_third_line

KEPT_BYTES = 2 << 30
"""Of lanes that wait for another tile of their shape. A lattice has up to four lengths along each
axis, so sixteen shapes; eleven lanes of 1248 x 1248 in float16 take so much."""

Shape = tuple[int, int]


class Lane:
    """One task's own.

    Parameters
    ----------
    network : GpuNetwork
    shape : (int, int)
        Of a tile, y and x.
    shares : Shares of each level
        Of any tile of this shape.
    """

    def __init__(self, network: GpuNetwork, shape: Shape, shares: list[Shares]) -> None:
        device = network.device
        self.shape = shape
        self.comes, self.goes = Upload(device, shape), Download(device, shape)
        self._network, self._turn = network, 0
        self._section = torch.zeros(shape, dtype=torch.uint8, device=device)
        self._stems = [network.stem(self._section) for _ in range(2)]
        self._shares = [Shares(*(share.clone() for share in level)) for level in shares]
        self._answer = Answer(
            torch.tensor([0, 0, *shape], dtype=torch.int32, device=device),
            torch.zeros((3, *shape), dtype=torch.uint8, device=device),
            torch.ones(1, dtype=torch.uint8, device=device),
        )
        self._rows, self._columns = shape
        kept = [self._section, self._answer.codes, *(t for stem in self._stems for t in stem)]
        self.bytes = sum(tensor.nbytes for tensor in kept)
        self._recorded: list[Callable[[], None]] = []
        if network.operators.recorded and device.type == "cuda":
            self._recorded = [record(partial(self._work, turn), device) for turn in range(2)]

    def place(self, shares: list[Shares], area: tuple[slice, slice]) -> None:
        """Go to a tile; ``area`` is the part of it whose codes are wanted."""
        for mine, theirs in zip(self._shares, shares, strict=True):
            for target, source in zip(mine, theirs, strict=True):
                target.copy_(source)
        bounds = [part.indices(n)[:2] for part, n in zip(area, self.shape, strict=True)]
        (top, bottom), (left, right) = bounds
        self._rows, self._columns = bottom - top, right - left
        for target, value in zip(
            self._answer.area.unbind(), (top, left, self._rows, self._columns), strict=True
        ):
            target.fill_(value)  # a copy would wait for the device
        self._answer.finite.fill_(1)

    def begin(self, section: Tensor) -> None:
        """Take the earlier section of a first pair."""
        self._network.stem(section, self._stems[self._turn])

    def advance(self, section: Tensor) -> Tensor:
        """Codes of the next section, uint8, shape (3, area); the caller's own."""
        self._section.copy_(section)
        if self._recorded:
            self._recorded[self._turn]()
        else:
            self._work(self._turn)
        self._turn = 1 - self._turn
        found = self._answer.codes[:, : self._rows, : self._columns]
        found = found.clone(memory_format=torch.contiguous_format)
        for axis in (1, 2):
            repeat_third_line(found[axis], axis - 3)
        return found

    @property
    def finite(self) -> bool:
        """Whether all embeddings were, since `place`; waits for the device."""
        return bool(self._answer.finite.item())

    def _work(self, turn: int) -> None:
        network, before, here = self._network, self._stems[turn], self._stems[1 - turn]
        network.stem(self._section, here)
        decoded = network.decode(before, here, self._shares)
        network.operators.finish(*decoded, network.heads, self._answer)


class Lanes:
    """Those of one network: each is one task's until it is given back."""

    def __init__(self, network: GpuNetwork) -> None:
        self._network, self._lock = network, threading.Lock()
        self._free: list[Lane] = []  # the one that was given back last is at the end
        self.kept_bytes = KEPT_BYTES
        self._known: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    @contextmanager
    def lane(
        self, shape: Shape, window: Window, area: tuple[slice, slice]
    ) -> Iterator[Lane]:  # fmt: skip
        """One for tiles of a shape, at its place."""
        shares = self._shares_of(window, shape)
        found = self._taken(shape)
        if found is None:
            with alone:
                found = Lane(self._network, shape, shares)
        found.place(shares, area)
        yield found
        with self._lock:  # not after an error, of which nobody knows enough
            self._free.append(found)
            while sum(lane.bytes for lane in self._free) > self.kept_bytes:
                del self._free[0]

    def _taken(self, shape: Shape) -> Lane | None:
        with self._lock:
            for lane in reversed(self._free):
                if lane.shape == shape:
                    self._free.remove(lane)
                    return lane
        return None

    def _shares_of(self, window: Window, shape: Shape) -> list[Shares]:
        """Shares of maps at a half to a sixteenth of a tile's resolution."""
        found = []
        for _ in range(4):
            window, shape = window.halved(), (shape[0] // 2, shape[1] // 2)
            axes = zip(shape, window.origin, window.section, strict=True)
            found.append(Shares(*(share for axis in axes for share in self._along(*axis))))
        return found

    def _along(self, n: int, origin: int, length: int) -> tuple[Tensor, Tensor]:
        """Kept for each row and column of tiles; threads may find them twice."""
        found = self._known.get((n, origin, length))
        if found is None:
            back, ahead = (
                share.to(self._network.device, torch.float32)
                for share in shares_along(n, origin, length)
            )
            found = back, ahead
            self._known[n, origin, length] = found
        return found
