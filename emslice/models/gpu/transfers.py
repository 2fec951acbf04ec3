"""Sections to the device and codes back, beside what is computed there.

Pinned buffers take turns, three in each direction: one is filled, one is copied, one is read. On
the CPU nothing is copied.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RING = 3


class _Ring:
    """Buffers on the host that take turns, and a stream of its own for copies."""

    def __init__(self, device: torch.device, shape: tuple[int, ...]) -> None:
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._hosts = [
            torch.empty(shape, dtype=torch.uint8, pin_memory=self._on_gpu) for _ in range(RING)
        ]
        self._stream: Any = torch.cuda.Stream(device) if self._on_gpu else None


class Upload(_Ring):
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


class Download(_Ring):
    """Codes on their way to the host; (Y, X) is the largest shape that they may have."""

    def __init__(self, device: torch.device, shape: tuple[int, int]) -> None:
        super().__init__(device, (3 * shape[0] * shape[1],))
        self._going: deque[tuple[Tensor, NDArray[np.uint8], Any]] = deque()
        self._n = 0

    def put(self, codes: Tensor, target: NDArray[np.uint8]) -> None:
        """Send codes, shape (3, Y, X), to an array; some wait for those before."""
        if not self._on_gpu:
            target[...] = codes.numpy()
            return
        if len(self._going) == RING:
            self._land()
        host = self._hosts[self._n % RING][: codes.numel()].view(codes.shape)
        self._n += 1
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            host.copy_(codes, non_blocking=True)
        codes.record_stream(self._stream)
        self._going.append((host, target, self._stream.record_event()))

    def finish(self) -> None:
        """Wait for all of them."""
        while self._going:
            self._land()

    def _land(self) -> None:
        host, target, copied = self._going.popleft()
        copied.synchronize()
        target[...] = host.numpy()
