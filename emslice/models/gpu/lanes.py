"""Memory of fixed addresses for tiles of one shape, and the work on a pair recorded once.

A pair is some 60 kernels of a few microseconds each. Recorded as a CUDA graph they are one launch,
and the interpreter, which several tasks share, is out of the way. A graph reads and writes where it
did when it was recorded; so all that changes from pair to pair lies in a lane: raw of the section,
features of both sections by turns, shares and area of the tile.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from emslice.models.gpu.operators import Head, Operators, Shares, shares_along
from emslice.models.student import Window

WARM_UPS = 2
"""Runs before recording: kernels are compiled and chosen, memory is taken."""

_recording = threading.Lock()


class Features(NamedTuple):
    """Of one section, shape (1, C, Y, X), channels last."""

    full: Tensor
    half: Tensor
    quarter: Tensor
    """``half``, pooled: what the trunk sees."""


class Network(Protocol):
    """What a lane runs."""

    operators: Operators
    device: torch.device

    heads: tuple[Head, Head]

    def stem(self, section: Tensor, into: Features | None = None) -> Features:
        """Features of one section, uint8, shape (Y, X)."""

    def decode(
        self, before: Features, here: Features, shares: list[Shares]
    ) -> tuple[Tensor, Tensor]:
        """What the heads of both sections take; ``shares[k]`` are those of level k + 1."""


class Lane:
    """One task's own.

    Parameters
    ----------
    network : Network
    shape : (int, int)
        Of a tile, y and x.
    shares : Shares of each level
        Of any tile of this shape.
    pool
        Memory that graphs share, as they run one after the other.
    """

    def __init__(
        self, network: Network, shape: tuple[int, int], shares: list[Shares], pool: Any
    ) -> None:
        self._network, self._turn = network, 0
        self._section = torch.zeros(shape, dtype=torch.uint8, device=network.device)
        self._features = [network.stem(self._section) for _ in range(2)]
        self._shares = [Shares(*(share.clone() for share in level)) for level in shares]
        self._area = torch.tensor([0, 0, *shape], dtype=torch.int32, device=network.device)
        self._codes = torch.zeros((3, *shape), dtype=torch.uint8, device=network.device)
        self._finite = torch.ones(1, dtype=torch.uint8, device=network.device)
        self._shape, self._rows, self._columns = shape, *shape
        work: list[Callable[[], None]] = [partial(self._work, turn) for turn in range(2)]
        if network.operators.recorded and network.device.type == "cuda":
            work = [record(each, network.device, pool) for each in work]
        self._steps = work

    def place(self, shares: list[Shares], area: tuple[slice, slice]) -> None:
        """Go to a tile; ``area`` is the part of it whose codes are wanted."""
        for mine, theirs in zip(self._shares, shares, strict=True):
            for target, source in zip(mine, theirs, strict=True):
                target.copy_(source)
        bounds = [part.indices(n)[:2] for part, n in zip(area, self._shape, strict=True)]
        (top, bottom), (left, right) = bounds
        self._rows, self._columns = bottom - top, right - left
        self._area.copy_(torch.tensor([top, left, self._rows, self._columns], dtype=torch.int32))
        self._finite.fill_(1)

    def begin(self, section: Tensor) -> None:
        """Take the earlier section of a first pair."""
        self._network.stem(section, self._features[self._turn])

    def advance(self, section: Tensor) -> Tensor:
        """Codes of the next section, uint8, shape (3, area); the caller's own."""
        self._section.copy_(section)
        self._steps[self._turn]()
        self._turn = 1 - self._turn
        found = self._codes[:, : self._rows, : self._columns]
        return found.clone(memory_format=torch.contiguous_format)

    @property
    def finite(self) -> bool:
        """Whether all embeddings were, since `place`; waits for the device."""
        return bool(self._finite.item())

    def _work(self, turn: int) -> None:
        before, here = self._features[turn], self._features[1 - turn]
        self._network.stem(self._section, here)
        decoded = self._network.decode(before, here, self._shares)
        self._network.operators.finish(
            *decoded, self._network.heads, self._area, self._codes, self._finite
        )


class Lanes:
    """As many as there are tasks at a time, by shape of their tiles."""

    def __init__(self, network: Network) -> None:
        self._network, self._lock = network, threading.Lock()
        self._free: dict[tuple[int, int], list[Lane]] = defaultdict(list)
        self._pool = torch.cuda.graph_pool_handle() if network.device.type == "cuda" else None
        self._known: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    @contextmanager
    def lane(
        self, shape: tuple[int, int], window: Window, area: tuple[slice, slice]
    ) -> Iterator[Lane]:
        """One that nobody else has, at its place."""
        with self._lock:
            free = self._free[shape]
            found = free.pop() if free else None
        shares = self._shares_of(window, shape)
        found = found or Lane(self._network, shape, shares, self._pool)
        found.place(shares, area)
        yield found
        with self._lock:
            self._free[shape].append(found)  # not after an error, of which nobody knows enough

    def _shares_of(self, window: Window, shape: tuple[int, int]) -> list[Shares]:
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
            back, ahead = shares_along(n, origin, length)
            found = back.to(self._network.device), ahead.to(self._network.device)
            self._known[n, origin, length] = found
        return found


def record(work: Callable[[], None], device: torch.device, pool: Any) -> Callable[[], None]:
    """The same work on the same memory, as one launch."""
    with _recording:  # entering a recording waits for the device, which another one forbids
        current, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                work()
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other tasks go on meanwhile, and may take memory.
        with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
            work()
    return graph.replay
