"""A 3D teacher that is not trained: what it says of crops, averaged over poses, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from emslice.geometry.neighborhood import NEAREST
from emslice.training.losses import volume_cosines
from emslice.training.targets import shifted

Cache = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
"""Gives what a function makes of a batch, from disk where it is there."""

POSES: dict[str, tuple[tuple[int, ...], ...]] = {"none": ((),), "flips": ((), (2,), (3,), (2, 3))}
"""Axes of (B, Z, Y, X) that are reversed."""


class FrozenTeacher(nn.Module):
    """Embeddings and affinities of crops by a network that stays as it is.

    Parameters
    ----------
    network : nn.Module
        (B, 1, Z, Y, X) in [0, 1] to an embedding (B, C, Z, Y, X).
    poses : "none" or "flips"
        Affinities are the mean over 1 or 4.
    cache : callable, optional
        It turns automatic mixed precision off; ``dtype`` is what the network runs in all the same.
    """

    frozen = True

    def __init__(
        self,
        network: nn.Module,
        poses: str = "none",
        cache: Cache | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self._poses, self._cache, self._dtype = POSES[poses], cache, dtype

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding (B, C, Z, Y, X) and affinity (B, 3, Z, Y, X), in [0, 1].

        Parameters
        ----------
        raw : Tensor, float, shape (B, Z, Y, X), in [0, 1]
        """
        both = self._cache(self._both, raw) if self._cache is not None else self._both(raw)
        return both[:, :-3], both[:, -3:]

    def _both(self, raw: Tensor) -> Tensor:
        embedding: Any = None
        total: Any = 0
        for axes in self._poses:
            with torch.autocast(raw.device.type, self._dtype, self._dtype != torch.float32):
                seen = self.network(raw.flip(axes)[:, None])
            if embedding is None:  # the pose that is none
                embedding = seen
            total = total + unflipped(volume_cosines(seen, NEAREST).clamp(min=0), axes)
        return torch.cat([embedding.float(), total / len(self._poses)], 1)


def unflipped(affinity: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Affinities of a crop that was reversed along axes of (B, Z, Y, X), in its own order.

    A link between two voxels is stored at the later one, which reversed was the earlier.
    """
    turned = affinity.flip([axis + 1 for axis in axes])
    channels = list(turned.unbind(1))
    for axis in axes:
        offset = tuple(-1 if k == axis - 1 else 0 for k in range(3))
        channels[axis - 1] = shifted(channels[axis - 1], offset)  # type: ignore[arg-type]
    return torch.stack(channels, 1)
