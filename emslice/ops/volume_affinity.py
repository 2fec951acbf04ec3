"""Affinities of a volume of embeddings in one pass: the twin of ``affinity.volume_affinity``.

For processors. Sums run in float32, channel after channel, whatever the embeddings are stored in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emslice.geometry.neighborhood import Offset
from emslice.ops.bfloat16 import widen

SMALLEST = np.float32(1e-12)
"""Length below which an embedding counts as this long, as in ``torch.nn.functional.normalize``."""


def volume_affinity(embedding: NDArray[Any], offsets: Sequence[Offset]) -> NDArray[np.float32]:
    """Affinity of every voxel with its neighbour at each offset.

    Parameters
    ----------
    embedding : float32 or bfloat16 as uint16, shape (C, Z, Y, X)
        Need not be normalised.
    offsets : sequence of K (z, y, x), voxels

    Returns
    -------
    affinity : float32, shape (K, Z, Y, X), in [0, 1]
        0 where the neighbour lies outside.
    """
    scale = np.zeros(embedding.shape[1:], np.float32)
    _measure(embedding, scale)
    affinity = np.zeros((len(offsets), *embedding.shape[1:]), np.float32)
    for offset, channel in zip(offsets, affinity, strict=True):
        _compare(embedding, scale, offset, channel)
    return affinity


@njit(nogil=True, cache=True)
def _measure(embedding: NDArray[Any], scale: NDArray[np.float32]) -> None:
    """What makes each embedding of length 1."""
    channels, depth, height, width = embedding.shape
    for z in range(depth):
        for y in range(height):
            row = scale[z, y]
            for c in range(channels):
                for x in range(width):
                    value = widen(embedding[c, z, y, x])
                    row[x] += value * value
            for x in range(width):
                row[x] = np.float32(1) / max(np.sqrt(row[x]), SMALLEST)


@njit(nogil=True, cache=True)
def _compare(
    embedding: NDArray[Any],
    scale: NDArray[np.float32],
    offset: tuple[int, int, int],
    affinity: NDArray[np.float32],
) -> None:
    channels, depth, height, width = embedding.shape
    dz, dy, dx = offset
    first, last = max(0, -dx), min(width, width - dx)
    for z in range(max(0, -dz), min(depth, depth - dz)):
        for y in range(max(0, -dy), min(height, height - dy)):
            row = affinity[z, y]
            for c in range(channels):
                here, there = embedding[c, z, y], embedding[c, z + dz, y + dy]
                for x in range(first, last):
                    row[x] += widen(here[x]) * widen(there[x + dx])
            for x in range(first, last):
                value = row[x] * scale[z, y, x] * scale[z + dz, y + dy, x + dx]
                row[x] = min(max(value, np.float32(0)), np.float32(1))
