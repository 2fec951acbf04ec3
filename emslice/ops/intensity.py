"""Raw of any depth to the 8 bits that the networks were trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.errors import ConfigError


def to_uint8(raw: NDArray[np.integer[Any]], window: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Raw as uint8: ``window`` = (low, high) is mapped to 0 and 255, rounded, and clipped.

    Integers only, so the result is the same on every machine. Without a window uint8 is returned
    as it is.

    Raises
    ------
    ConfigError
        uint16 without a window, another dtype, or an empty window.
    """
    check_window(raw.dtype, window)
    if window is None:
        return raw.view(np.uint8)
    low, high = window
    span = high - low
    clipped = np.clip(raw.astype(np.int64), low, high) - low
    return ((510 * clipped + span) // (2 * span)).astype(np.uint8)


def check_window(dtype: np.dtype[Any], window: tuple[int, int] | None) -> None:
    """Raise `ConfigError` unless raw of this dtype can be shown through this window."""
    if dtype not in (np.uint8, np.uint16):
        raise ConfigError(f"raw: dtype is {dtype}; expected uint8, or uint16 with raw.window.")
    if window is None:
        if dtype == np.uint16:
            raise ConfigError(
                "raw.window: raw is uint16, and no intensity window is given. Choose the values "
                "that become black and white, e.g. --set raw.window=[0,65535]."
            )
        return
    low, high = window
    if not 0 <= low < high <= np.iinfo(dtype).max:
        raise ConfigError(
            f"raw.window: [{low}, {high}] is not a rising pair within 0 to "
            f"{np.iinfo(dtype).max}, the range of {dtype}."
        )
