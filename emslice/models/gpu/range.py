"""Whether what a network gave is inside the range of its numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def all_finite(values: Tensor) -> Tensor:
    """Whether no value is NaN or infinite; extremes cannot overflow, as sums could."""
    low, high = torch.aminmax(values)
    return low.isfinite() & high.isfinite()


def out_of_range(dtype: torch.dtype) -> str:
    """What to say of values that are not finite."""
    return (
        f"predict.precision: features of this network leave the range of {dtype} (largest "
        f"{torch.finfo(dtype).max:g}) on this raw. Take bfloat16 or float32."
    )
