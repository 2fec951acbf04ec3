"""Losses of affinities that are cosines of embeddings.

An affinity is a cosine clipped at 0. Clipped, a pair that belongs together has no gradient once
its cosine is negative, just where it is most wrong. So the error of a cosine ``c`` to an affinity
``t`` is ``t (1 - c)**2 + (1 - t) max(c, 0)**2 - t (1 - t)``: from 0 up it is ``(c - t)**2``, and
below it still pulls what belongs together. ``clipped`` is the published loss, without that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from emslice.geometry.neighborhood import Offset
from emslice.ops.affinity import overlap
from emslice.training.targets import Targets


def affinity_error(cosine: Tensor, affinity: Tensor, clipped: bool = False) -> Tensor:
    """Error of each cosine to the affinity that it should be, which lies in [0, 1]."""
    if clipped:
        return (cosine.clamp(0, 1) - affinity) ** 2
    together = affinity * (1 - cosine) ** 2
    apart = (1 - affinity) * cosine.clamp(min=0) ** 2
    return together + apart - affinity * (1 - affinity)


def weighted_mean(error: Tensor, weights: Tensor, usable: Tensor) -> Tensor:
    """Mean over the usable links of each channel, summed over channels.

    Parameters
    ----------
    error, weights : Tensor, float, shape (B, K, ...)
    usable : Tensor, bool, the same shape
    """
    axes = (0, *range(2, error.ndim))
    total = (error * weights * usable).sum(axes)
    return (total / usable.sum(axes).clamp(min=1)).sum()


def pair_cosines(before: Tensor, here: Tensor) -> Tensor:
    """Cosines of the later sections of pairs along z, y, x, shape (N, 3, Y, X).

    Parameters
    ----------
    before, here : Tensor, float, shape (N, C, Y, X)
        Embeddings, not normalised. The first row and column have no neighbour: 0.
    """
    last, unit = F.normalize(before.float(), dim=1), F.normalize(here.float(), dim=1)
    along_y = F.pad((unit[:, :, 1:] * unit[:, :, :-1]).sum(1), (0, 0, 1, 0))
    along_x = F.pad((unit[..., 1:] * unit[..., :-1]).sum(1), (1, 0))
    return torch.stack([(last * unit).sum(1), along_y, along_x], 1)


def volume_cosines(embedding: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """Cosines at each offset, shape (B, K, Z, Y, X); 0 where the neighbour is outside.

    Parameters
    ----------
    embedding : Tensor, float, shape (B, C, Z, Y, X)
    """
    unit = F.normalize(embedding.float(), dim=1)
    return torch.stack([_cosine(unit, offset) for offset in offsets], 1)


def _cosine(unit: Tensor, offset: Offset) -> Tensor:
    """Products of unit vectors at ``p`` and ``p + offset``; only where both are is computed."""
    here, there = overlap(tuple(unit.shape[2:]), offset)
    cosine = torch.zeros_like(unit[:, 0])
    cosine[:, *here] = (unit[:, :, *here] * unit[:, :, *there]).sum(1)
    return cosine


def pair_loss(cosine: Tensor, targets: Targets, clipped: bool = False) -> Tensor:
    """Loss of pairs of sections to their labels (reference: L_emb2D)."""
    error = affinity_error(cosine, targets.affinity, clipped)
    return weighted_mean(error, targets.weights, targets.usable)


def volume_loss(cosine: Tensor, targets: Targets, near: float = 10.0) -> Tensor:
    """Loss of a 3D teacher to its labels (reference: L_3D).

    The first three channels, the nearest, count ``near`` times. Cosines are not clipped at all.
    """
    emphasis = torch.ones(cosine.shape[1], device=cosine.device)
    emphasis[:3] = near
    weights = targets.weights * emphasis.view(1, -1, 1, 1, 1)
    return weighted_mean((cosine - targets.affinity) ** 2, weights, targets.usable)
