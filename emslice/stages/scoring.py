"""Affinities in memory, segmented and scored at many thresholds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.metrics import ThresholdScores, score_cuts
from emslice.ops.cuts import cut_affinities
from emslice.ops.dust import DustRule
from emslice.ops.linkage import Linkage


def score_affinities(
    codes: NDArray[np.uint8],
    truth: NDArray[np.integer[Any]],
    thresholds: Iterable[float],
    default: float = 0.5,
    *,
    min_size: int = 100,
    linkage: Linkage | None = None,
    workers: int = 1,
) -> ThresholdScores:
    """Scores at some thresholds and the default one: what segmenting and evaluating there gives.

    Parameters
    ----------
    codes : uint8, shape (3, Z, Y, X)
    truth : integers, shape (Z, Y, X); 0 is left out
    """
    wanted = {*thresholds, default}
    cuts = cut_affinities(codes, wanted, linkage, DustRule(min_size), workers=workers)
    return score_cuts(cuts.labels, cuts.segments, truth, default)
