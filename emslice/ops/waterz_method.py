"""Agglomeration by waterz (Funke et al. 2019), called so that its traps do not bite.

waterz overwrites the fragments, wants float32 and labels without gaps (its memory grows with the
largest), compiles scores that it does not ship, and prints to the process's standard output. It
settles equal scores by label, so **the result depends on how fragments are numbered, and on the
block**: it is for volumes in memory. It holds the interpreter's lock all the while.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import numpy as np
from numpy.typing import NDArray

from emslice.errors import ConfigError
from emslice.ops.linkage import Linkage
from emslice.ops.lut import Lut

QUANTILES = (*range(10, 91, 5), 95)
"""Percent: the scores that waterz ships. Any other would want a compiler and boost."""


def waterz_lut(
    affinity: NDArray[np.uint8],
    labels: NDArray[np.int32],
    ids: NDArray[np.uint64],
    threshold: float,
    linkage: Linkage,
) -> Lut:
    """Fragment to segment by waterz; a segment's id is its smallest fragment's.

    Parameters
    ----------
    affinity : uint8, shape (3, Z, Y, X)
    labels : int32, shape (Z, Y, X)
        Dense fragment numbers; 0 is the background.
    ids : uint64, shape (N + 1,)
        Id of each number; ids[0] = 0.
    threshold : float
        Affinity: waterz merges while its own score, one minus affinity, is below 1 - threshold.

    Notes
    -----
    20 bytes a voxel besides waterz's own.
    """
    merged = merge_by_waterz(
        affinity.astype(np.float32) / np.float32(256), labels, threshold, linkage
    )
    cluster = np.zeros(len(ids), np.uint64)
    cluster[labels.ravel()] = merged.ravel()
    found, members = np.unique(cluster, return_inverse=True)
    names = np.full(len(found), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(names, members, ids)
    order = np.argsort(ids)
    return Lut(ids[order][1:], names[members][order][1:])


def merge_by_waterz(
    affinity: NDArray[np.float32], labels: NDArray[np.int32], threshold: float, linkage: Linkage
) -> NDArray[np.uint64]:
    """Labels after merging, each the label of one of its fragments.

    Parameters
    ----------
    affinity : float32, shape (3, Z, Y, X), in [0, 1]
    """
    check_waterz(linkage)
    import waterz

    fragments = labels.astype(np.uint64)  # waterz works in place
    with _nothing_printed():
        results = waterz.agglomerate(
            affinity, [1 - threshold], fragments=fragments, scoring_function=score_name(linkage),
            discretize_queue=256,
        )  # fmt: skip
        for _ in results:  # every result is `fragments` itself
            pass
    return fragments


def score_name(linkage: Linkage) -> str:
    """The C++ type of a linkage's score."""
    if linkage.name == "mean":
        return "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>"
    largest_first = "true" if linkage.name == "quantile_max" else "false"
    return (
        f"OneMinus<HistogramQuantileAffinity<RegionGraphType, {linkage.quantile}, ScoreValue, "
        f"256, {largest_first}>>"
    )


def check_waterz(linkage: Linkage) -> None:
    """Raise `ConfigError` unless waterz is installed and ships a linkage's score."""
    try:
        import waterz  # noqa: F401
    except ImportError:
        raise ConfigError(
            "agglomeration.method: waterz is not installed. Install it: "
            "pip install emslice[compare]"
        ) from None
    if linkage.name != "mean" and linkage.quantile not in QUANTILES:
        raise ConfigError(
            f"agglomeration.quantile: waterz ships no score for {linkage.quantile} percent; take "
            f"one of {', '.join(map(str, QUANTILES))}, or agglomeration.method exact."
        )


@contextmanager
def _nothing_printed() -> Iterator[None]:
    """Send standard output to nowhere, of Python and, by its descriptor, of C++.

    What other threads print meanwhile is lost too.
    """
    flush_c = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    flush_c(None)
    saved, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        with open(os.devnull, "w") as python, redirect_stdout(python):
            yield
    finally:
        flush_c(None)  # before the descriptor comes back, or C's buffer would go out through it
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)
