"""bfloat16 in compiled kernels: the upper half of a float32, held as uint16.

NumPy and numba have no such type. A kernel widens what it reads, computes in float32 and rounds
what it writes, to the nearest and ties to even, as processors with the type do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload


def widen(value: Any) -> Any:
    """The float32 that a stored value stands for, inside a kernel."""
    raise NotImplementedError("for compiled kernels only")


def narrow(value: Any, like: Any) -> Any:
    """A float32 as it is stored beside ``like``, inside a kernel."""
    raise NotImplementedError("for compiled kernels only")


@overload(widen, strict=False)
def _widen(value: types.Type) -> Callable[..., Any]:
    if value == types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


@overload(narrow, strict=False)
def _narrow(value: types.Type, like: types.Type) -> Callable[..., Any]:
    if like != types.uint16:
        return lambda value, like: value

    def rounded(value: Any, like: Any) -> Any:
        bits = np.float32(value).view(np.uint32)
        half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return np.uint16(np.uint32(bits + half) >> np.uint32(16))

    return rounded
