"""What a row of the region graph is worth, and how two rows become one when their pairs merge.

================  ======================================  ======================================
linkage           statistic of a pair                     score of a pair
================  ======================================  ======================================
``mean``          sum and number of the codes             floor(2^16 sum / number)
``quantile_max``  the largest code, once per base pair    2^16 x code at rank floor(q n / 100) + 1
================  ======================================  ======================================

A score is a fraction of 2^24 (``SCALE``); a pair merges at threshold T iff score >= 2^24 T. Equal
scores are the rule with 256 codes, so every base pair has a *tie rank*: more contacts first, then
the smaller hash of its ids, then the smaller ids. The **union** of two rows adds their statistics
and keeps the worse of the two ranks. Then the law on which exactness rests holds for both:

    key(union of two rows) is never above the better of the two keys        (reducibility)

since a mean or a quantile of a mixture lies between those of its parts, and the rank falls back.
``quantile_max`` with q = 50 is the setting of the published CAD and EM-SliceCrafter results
(waterz ``HistogramQuantileAffinity``, initialised with the maximum).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emslice.errors import ConfigError
from emslice.ops.region_graph import RegionGraph

SCALE = 2**24
"""A score of 1."""

LINKAGES = ("mean", "quantile_max")


@dataclass(frozen=True)
class Linkage:
    """A statistic and, for the quantile, its percentage."""

    name: str = "quantile_max"
    quantile: int = 50

    def __post_init__(self) -> None:
        if self.name not in LINKAGES:
            raise ConfigError(
                f"agglomeration.linkage: unknown linkage {self.name!r}; known: "
                f"{', '.join(LINKAGES)}."
            )
        if not 0 <= self.quantile < 100:
            raise ConfigError(
                f"agglomeration.quantile: {self.quantile} is not within 0 to 99 percent."
            )


def integer_threshold(threshold: float) -> int:
    """Smallest score that reaches a threshold in [0, 1]: ``ceil(2^24 T)``, exact.

    >>> integer_threshold(0.5) == SCALE // 2
    True

    Raises
    ------
    ConfigError
        Not a number in [0, 1].
    """
    if not 0 <= threshold <= 1:  # also NaN
        raise ConfigError(
            f"agglomeration.threshold: {threshold} is not within 0 to 1. It is an affinity: "
            f"fragments merge while their score is at least the threshold."
        )
    scaled = Fraction(threshold) * SCALE
    return -(-scaled.numerator // scaled.denominator)


class Rows(NamedTuple):
    """Statistics of E pairs in the form that agglomeration works on (compiled code reads it)."""

    number: NDArray[np.int64]
    """Shape (E,). Contacts (mean) or base pairs (quantile) behind each pair."""

    total: NDArray[np.int64]
    """Shape (E,). Sum of codes; of no meaning for the quantile."""

    run: NDArray[np.int32]
    """Shape (E,). First run of each pair's histogram, or -1; see ``run_next``."""

    run_code: NDArray[np.uint8]
    """Shape (R,). Code of each run of equal codes; runs of a pair ascend."""

    run_number: NDArray[np.int64]
    """Shape (R,). Length of each run."""

    run_next: NDArray[np.int32]
    """Shape (R,). Next run of the same pair, or -1."""


def base_rows(graph: RegionGraph, linkage: Linkage) -> Rows:
    """Rows of base pairs: of the quantile, one run of one code each."""
    n = len(graph)
    if linkage.name == "mean":
        nothing = np.zeros(0, np.int32)
        return Rows(
            graph.contacts.copy(),
            graph.total.copy(),
            np.full(n, -1, np.int32),
            np.zeros(0, np.uint8),
            np.zeros(0, np.int64),
            nothing,
        )
    return Rows(
        np.ones(n, np.int64),
        np.zeros(n, np.int64),
        np.arange(n, dtype=np.int32),
        graph.highest.copy(),
        np.ones(n, np.int64),
        np.full(n, -1, np.int32),
    )


def hash_pairs(u: NDArray[np.uint64], v: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64-bit hash of pairs of ids: the finaliser of splitmix64 (Steele et al. 2014), twice."""

    def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))

    return mix(mix(u) ^ v)


def tie_ranks(graph: RegionGraph, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Place of each base pair in the order of ties; 0 is the best.

    More contacts first, then the smaller hash of (u, v), then the smaller (u, v).
    """
    hashes = hash_pairs(ids[graph.edges[:, 0]], ids[graph.edges[:, 1]])
    # Rows are sorted by pair, and both sorts are stable: equal hashes stay in the order of pairs.
    order = np.argsort(hashes, kind="stable")
    order = order[np.argsort(-graph.contacts[order], kind="stable")]
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank
