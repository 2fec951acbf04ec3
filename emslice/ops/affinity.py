"""Embeddings to affinities, and affinities to the integers that everything after works on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from emslice.errors import ConfigError


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
