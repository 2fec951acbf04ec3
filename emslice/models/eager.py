"""The student as PyTorch runs it, for devices other than the processor."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emslice.models.student import Student, Window
from emslice.ops.affinity import pair_affinity, quantise

Stem = tuple[Tensor, Tensor]


class EagerStudent:
    """Codes of one pair at a time; a copy of the network is moved to the device."""

    def __init__(self, network: Student, device: str) -> None:
        self._device = device
        self._network = copy.deepcopy(network).to(device)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def stem(self, section: NDArray[np.uint8]) -> Stem:
        """Features of one section, uint8 of shape (Y, X); its partner has no part in them."""
        batch = torch.from_numpy(np.ascontiguousarray(section)[None, None])
        batch = batch.to(self._device).float() / 255
        return self._network.stem(batch.contiguous(memory_format=torch.channels_last))

    def codes(
        self, before: Stem, here: Stem, window: Window, area: tuple[slice, slice]
    ) -> NDArray[np.uint8]:
        """Affinity codes of the later section inside an area, shape (3, Y, X)."""
        first, second = (e[0, :, *area] for e in self._network.decode(before, here, window))
        codes: NDArray[np.uint8] = quantise(pair_affinity(first, second)).cpu().numpy()
        return codes
