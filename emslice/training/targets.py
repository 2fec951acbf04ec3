"""What affinities should be, from labels: 1 inside a neuron, 0 across a membrane.

Everything is batched, on the device of the labels. A link is *usable* if both of its ends lie in
the crop and may be believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from emslice.geometry.neighborhood import NEAREST, Offset
from emslice.ops.affinity import overlap

LEAST, MOST = 0.05, 0.99
"""Between which a share of positive links is taken to lie: no weight is above 99."""


@dataclass(frozen=True)
class Targets:
    """What a loss compares affinities with, each of shape (B, K, Z, Y, X) or (N, 3, Y, X)."""

    affinity: Tensor
    """Float, 0 or 1."""

    usable: Tensor
    """Bool."""

    weights: Tensor
    """Float, 0 where not usable."""

    def only(self, labelled: Tensor) -> Targets:
        """The same; no link is usable where ``labelled``, bool of shape (N,), is False."""
        usable = self.usable & labelled.view(-1, *[1] * (self.usable.ndim - 1))
        return Targets(self.affinity, usable, self.weights)


def widen_border(labels: Tensor) -> Tensor:
    """Labels with 0 wherever the 3 x 3 voxels around, in the section, hold two neurons.

    Parameters
    ----------
    labels : Tensor, int64, shape (..., Y, X)
        0 is background; ids below 2**24.
    """
    ids = labels.reshape(-1, 1, *labels.shape[-2:]).float()
    most = F.max_pool2d(ids, 3, 1, 1)
    least = -F.max_pool2d(torch.where(ids > 0, -ids, -torch.inf), 3, 1, 1)
    return torch.where((most > 0) & (least < most), 0, ids).long().reshape(labels.shape)


def volume_targets(
    labels: Tensor, valid: Tensor, offsets: Sequence[Offset], together: bool = True
) -> Targets:
    """Targets of the links of crops.

    Parameters
    ----------
    labels : Tensor, int64, shape (B, Z, Y, X)
    valid : Tensor, bool, the same shape
    offsets : sequence of K (z, y, x)
    together : bool
        Whether classes are balanced over all channels of a crop at once, or each by itself.
    """
    links = [_compare(labels, labels, valid, valid, offset) for offset in offsets]
    return _balanced(links, together)


def pair_targets(labels: Tensor, valid: Tensor) -> Targets:
    """Targets along z, y and x of the later sections of pairs, each channel balanced by itself.

    Parameters
    ----------
    labels : Tensor, int64, shape (N, 2, Y, X)
    valid : Tensor, bool, the same shape
    """
    (before, here), (known, seen) = labels.split(1, 1), valid.split(1, 1)
    links = [
        _compare(here, before if z else here, seen, known if z else seen, (0, y, x))
        for z, y, x in NEAREST
    ]
    targets = _balanced(links, together=False)
    return Targets(
        *(part.squeeze(2) for part in (targets.affinity, targets.usable, targets.weights))
    )


def _compare(
    here: Tensor, there: Tensor, seen: Tensor, known: Tensor, offset: Offset
) -> tuple[Tensor, Tensor]:
    """Whether the ends of links have one label, and whether that may be believed."""
    other, known = (shifted(volume, offset) for volume in (there, known))
    return (here == other) & (here > 0), seen & known


def shifted(volume: Tensor, offset: Offset) -> Tensor:
    """What lies at ``p + offset``, for each place ``p``; 0 where that is outside.

    Parameters
    ----------
    volume : Tensor, shape (..., Z, Y, X)
    """
    here, there = overlap(tuple(volume.shape[-3:]), offset)
    moved = torch.zeros_like(volume)
    target: Any = (..., *here)
    source: Any = (..., *there)
    moved[target] = volume[source]
    return moved


def _balanced(links: list[tuple[Tensor, Tensor]], together: bool) -> Targets:
    affinity = torch.stack([equal for equal, _ in links], 1).float()
    usable = torch.stack([known for _, known in links], 1)
    return Targets(affinity, usable, balance_weights(affinity, usable, together))


def balance_weights(affinity: Tensor, usable: Tensor, together: bool) -> Tensor:
    """Weights that make the rarer class of each crop count as much as the other.

    With ``f`` the share of positive links, within 0.05 and 0.99: ``f / (1 - f)`` on the negative
    ones if ``f`` is above a half, or else ``(1 - f) / f`` on the positive ones; 1 on all others,
    and everywhere in a crop with one class only. The published weights of CAD.
    """
    axes = tuple(range(1 if together else 2, affinity.ndim))
    n = usable.sum(axes, keepdim=True)
    share = (affinity * usable).sum(axes, keepdim=True) / n.clamp(min=1)
    both = (share > 0) & (share < 1)
    share = share.clamp(LEAST, MOST)
    positive = torch.where(both, ((1 - share) / share).clamp(min=1), 1)
    negative = torch.where(both, (share / (1 - share)).clamp(min=1), 1)
    return torch.where(affinity > 0, positive, negative) * usable
