"""Embeddings to affinities, and affinities to the integers that everything after works on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from emslice.errors import ConfigError, GeometryError
from emslice.geometry.neighborhood import Offset


def pair_affinity(before: Tensor, here: Tensor) -> Tensor:
    """Affinities of the later section of a pair, to the section before and within itself.

    The cosine of two embeddings, clipped to [0, 1]. Channel 0 compares ``here`` with ``before`` at
    the same place, channels 1 and 2 compare ``here`` with itself one voxel up and one to the left.
    The first row and column, which have no such neighbour, repeat the third (reflection of the
    comparisons, as in the published code); with two rows, the second; with one, they are 1.

    Parameters
    ----------
    before, here : Tensor, float, shape (C, Y, X)
        Embeddings of sections z - 1 and z; need not be normalised.

    Returns
    -------
    affinity : Tensor, float, shape (3, Y, X), in [0, 1]
    """
    last, unit = F.normalize(before, dim=0), F.normalize(here, dim=0)
    along_z = (last * unit).sum(0)
    along_y = _with_first((unit[:, 1:] * unit[:, :-1]).sum(0), 0)
    along_x = _with_first((unit[:, :, 1:] * unit[:, :, :-1]).sum(0), 1)
    return torch.stack([along_z, along_y, along_x]).clamp(0, 1)


def _with_first(compared: Tensor, axis: int) -> Tensor:
    """Prepend the line that has no earlier neighbour."""
    n = compared.shape[axis]
    if n == 0:
        shape = list(compared.shape)
        shape[axis] = 1
        return compared.new_ones(shape)
    return torch.cat([compared.narrow(axis, min(1, n - 1), 1), compared], axis)


def volume_affinity(embedding: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """Affinity of every voxel of a volume with its neighbour at each offset.

    ``affinity[k, p]`` is the cosine of the embeddings at ``p`` and ``p + offsets[k]``, clipped to
    [0, 1], and 0 where the neighbour lies outside. Differentiable.

    Parameters
    ----------
    embedding : Tensor, float, shape (C, Z, Y, X)
        Need not be normalised.
    offsets : sequence of K (z, y, x), voxels

    Returns
    -------
    affinity : Tensor, float, shape (K, Z, Y, X), in [0, 1]
    """
    unit = F.normalize(embedding, dim=0)
    return torch.stack([_cosine(unit, unit, offset) for offset in offsets])


def pair_affinities(before: Tensor, here: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """The same for the later section of a pair, with offsets of 0 or -1 along z.

    Parameters
    ----------
    before, here : Tensor, float, shape (C, Y, X)
        Embeddings of sections z - 1 and z; need not be normalised.

    Returns
    -------
    affinity : Tensor, float, shape (K, Y, X), in [0, 1]
    """
    if any(z not in (0, -1) for z, _, _ in offsets):
        raise GeometryError(f"offsets {offsets}: a pair of sections has 0 and -1 along z only.")
    last, unit = (F.normalize(section, dim=0)[:, None] for section in (before, here))
    linked = [_cosine(unit, last if z else unit, (0, y, x)) for z, y, x in offsets]
    return torch.stack(linked)[:, 0]


def _cosine(unit: Tensor, other: Tensor, offset: Offset) -> Tensor:
    """Products of unit vectors at ``p`` and, in the other volume, at ``p + offset``."""
    here, there = overlap(tuple(unit.shape[1:]), offset)
    compared = unit.new_zeros(unit.shape[1:])
    compared[here] = (unit[:, *here] * other[:, *there]).sum(0).clamp(0, 1)
    return compared


def overlap(shape: tuple[int, ...], offset: Offset) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where both ends of a link lie inside, as slices of each end."""
    pairs = list(zip(shape, offset, strict=True))
    # An offset longer than the axis would give a negative stop, which wraps.
    here = tuple(slice(max(0, -o), max(0, min(n, n - o))) for n, o in pairs)
    there = tuple(slice(max(0, o), max(0, min(n, n + o))) for n, o in pairs)
    return here, there


def boundary_affinity(boundary: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """Affinities from a map of membranes: 1 less the larger value of the two voxels (SAvEM3).

    Parameters
    ----------
    boundary : Tensor, float, shape (Z, Y, X), in [0, 1]
        1 on a membrane.

    Returns
    -------
    affinity : Tensor, float, shape (K, Z, Y, X), in [0, 1]
        0 where the neighbour lies outside.
    """
    affinity = boundary.new_zeros(len(offsets), *boundary.shape)
    for channel, offset in zip(affinity, offsets, strict=True):
        here, there = overlap(tuple(boundary.shape), offset)
        channel[here] = 1 - torch.maximum(boundary[here], boundary[there])
    return affinity


def repeat_first_lines(affinity: Tensor) -> Tensor:
    """Give the first line of each axis, which has no earlier neighbour, the values of the second.

    In place, of the first three channels (published for windows of 3D networks).
    """
    for axis in range(3):
        channel = affinity[axis]
        if channel.shape[axis] > 1:
            channel.select(axis, 0).copy_(channel.select(axis, 1))
    return affinity


def quantise(affinity: Tensor) -> Tensor:
    """``floor(256 a)`` capped at 255, uint8: 256 equal bins, the score of the published waterz."""
    return (affinity * 256).clamp(0, 255).to(torch.uint8)


def quantise_array(
    affinity: NDArray[np.generic], what: str = "affinities", first: int = 0
) -> NDArray[np.uint8]:
    """The same for an array of floats in [0, 1]; an array of uint8 is returned as it is.

    ``first`` is the number of the first section in messages.

    Raises
    ------
    ConfigError
        Not uint8 or a float type, NaN, or values outside [0, 1].
    """
    if affinity.dtype == np.uint8:
        return affinity.view(np.uint8)
    if not np.issubdtype(affinity.dtype, np.floating):
        raise ConfigError(
            f"{what}: dtype is {affinity.dtype}; expected uint8 codes or floats in [0, 1]."
        )
    codes = np.empty(affinity.shape, np.uint8)
    for index in np.ndindex(affinity.shape[:2]):  # a section at a time: no copy of the whole
        values = affinity[index]
        if values.dtype == np.float16:
            values = values.astype(np.float32)  # 256 a leaves half precision
        if np.isnan(values).any():
            raise ConfigError(
                f"{what}: {int(np.isnan(values).sum())} NaN in channel {index[0]}, section "
                f"{first + index[1]}. Replace them by 0; a voxel with 0 in all channels is masked."
            )
        low, high = float(values.min(initial=1)), float(values.max(initial=0))
        if low < 0 or high > 1:
            raise ConfigError(
                f"{what}: values from {low:g} to {high:g} in channel {index[0]}, section "
                f"{first + index[1]}; floats must lie in [0, 1], codes of 0 to 255 must be uint8."
            )
        codes[index] = np.minimum(np.floor(values * 256), 255)
    return codes
