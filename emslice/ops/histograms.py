"""Histograms of the codes of many rows in one table: a run for each code that a row has.

Never a dense histogram for each row: most rows have few contacts, and fewer different codes. On
real data a row has 16 runs; it takes 50 bytes here, where 256 bins would take 2,048.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Histograms:
    """Runs of E rows, one row after the other; of no rows where nobody needs them."""

    size: NDArray[np.uint16] = field(default_factory=lambda: np.zeros(0, np.uint16))
    """Shape (E,). Runs of each row, at most 256."""

    code: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    """Shape (R,). Code of each run; those of a row ascend."""

    number: NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.uint8))
    """Shape (R,). Contacts of each run; unsigned, as narrow as the largest allows."""

    @property
    def start(self) -> NDArray[np.int64]:
        """Shape (E + 1,). First run of each row, and the end of the last."""
        return np.concatenate([[0], np.cumsum(self.size, dtype=np.int64)])


def histograms_of(
    row: NDArray[Any], code: NDArray[np.uint8], number: NDArray[np.int64], n_rows: int
) -> Histograms:
    """Histograms of ``n_rows`` rows from runs sorted by row, then code."""
    size = np.bincount(row, minlength=n_rows).astype(np.uint16)
    width = np.min_scalar_type(int(number.max(initial=0)))
    return Histograms(size, code, number.astype(width))


def add_histograms(parts: Sequence[Histograms], into: NDArray[np.int64], n_rows: int) -> Histograms:
    """Histograms of ``n_rows`` rows that others became part of.

    Parameters
    ----------
    parts : sequence of Histograms
        All of no rows, and so is the result; or their rows are, one after the other, those of
        ``into``.
    into : int64, shape (E,)
        The new row of each, or -1 for none.
    """
    size = np.concatenate([part.size for part in parts])
    if not len(size):
        return Histograms()
    place = np.repeat(into << 8, size)  # in place: this is the largest table of a block
    place |= np.concatenate([part.code for part in parts])
    number = np.concatenate([part.number for part in parts])
    order = np.argsort(place)
    order = order[np.searchsorted(place, 0, sorter=order) :]
    place, number = place[order], number[order]
    del order
    first = np.flatnonzero(np.diff(place, prepend=-1))
    total = np.add.reduceat(number, first, dtype=np.int64) if len(first) else number
    place = place[first]
    return histograms_of(place >> 8, place.astype(np.uint8), total, n_rows)
