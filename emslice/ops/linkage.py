"""What a row of the region graph is worth, and how two rows become one when their pairs merge.

================  ======================================  ======================================
linkage           statistic of a pair                     score of a pair
================  ======================================  ======================================
``mean``          sum and number of the codes             floor(2^16 sum / number)
``quantile_max``  the largest code, once per base pair    2^16 x code at rank floor(q n / 100) + 1
``quantile``      all codes                               the same
================  ======================================  ======================================

A score is a fraction of 2^24 (``SCALE``); a pair merges at threshold T iff score >= 2^24 T. Equal
scores are the rule with 256 codes, so every base pair has a *tie rank*: more contacts first, then
the smaller hash of its ids, then the smaller ids. The **union** of two rows adds their statistics
and keeps the worse of the two ranks. Then the law on which exactness rests holds for all:

    key(union of two rows) is never above the better of the two keys        (reducibility)

since a mean or a quantile of a mixture lies between those of its parts, and the rank falls back.
``quantile_max`` with q = 50 is the setting of the published CAD and EM-SliceCrafter results
(waterz ``HistogramQuantileAffinity``, initialised with the maximum); ``quantile`` is the same
without that.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.errors import ConfigError
from emslice.ops.merging import CODE_BITS, Rows
from emslice.ops.radix import stable_order
from emslice.ops.region_graph import RegionGraph

SCALE = 2**24
"""A score of 1."""

SELDOM_BITS = 20
"""Lowest bits of what `tie_order` sorts by, left to where the others are equal."""

LINKAGES = ("mean", "quantile_max", "quantile")


@dataclass(frozen=True)
class Linkage:
    """A statistic and, for quantiles, their percentage."""

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

    @property
    def needs_histograms(self) -> bool:
        """Whether the codes of all contacts must be counted."""
        return self.name == "quantile"


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


def base_rows(graph: RegionGraph, linkage: Linkage) -> Rows:
    """Rows of base pairs, as agglomeration works on them: of ``quantile_max``, one run each."""
    if linkage.name == "mean":
        return mean_rows(graph.contacts, graph.total)
    if linkage.needs_histograms:
        assert len(graph.histograms.size) == len(graph), "no histograms were made"
        runs = graph.histograms
        return histogram_rows(graph.contacts, runs.start, runs.code, runs.number)
    one = np.ones(len(graph), np.int64)
    return histogram_rows(one, np.arange(len(graph) + 1), graph.highest, one)


def mean_rows(number: NDArray[np.int64], total: NDArray[np.int64]) -> Rows:
    """Rows of sums."""
    return Rows(np.stack([number, total], axis=1), np.zeros((0, 2), np.int64))


def histogram_rows(
    number: NDArray[np.int64],
    start: NDArray[np.int64],
    code: NDArray[np.uint8],
    length: NDArray[np.integer[Any]],
) -> Rows:
    """Rows of histograms: that of row e is the runs ``start[e]`` to ``start[e + 1]``."""
    link = np.empty((len(code), 2), np.int64)
    link[:, 0] = length
    link[:, 1] = np.arange(1, len(code) + 1)
    link[start[1:] - 1, 1] = -1
    link[:, 1] = link[:, 1] << CODE_BITS | code
    return Rows(np.stack([number, start[:-1]], axis=1), link)


def hash_pairs(u: NDArray[np.uint64], v: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64-bit hash of pairs of ids: the finaliser of splitmix64 (Steele et al. 2014), twice."""

    def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))

    return mix(mix(u) ^ v)


def tie_order(pairs: NDArray[np.uint64], contacts: NDArray[np.int64]) -> NDArray[np.int32]:
    """Rows in the order of ties, the best first; ``pairs`` are ids, shape (E, 2), none twice.

    More contacts first, then the smaller hash of (u, v), then the smaller (u, v).
    """
    u, v = pairs[:, 0], pairs[:, 1]
    hashes, most = hash_pairs(u, v), int(contacts.max(initial=1))
    bits = np.uint64(most.bit_length())
    # One sort of one integer: contacts, and as much of the hash as fits below. Its lowest bits
    # seldom matter, and where they do, all is compared.
    packed = (most - contacts).astype(np.uint64) << np.uint64(64) - bits | hashes >> bits
    order = stable_order(packed, SELDOM_BITS, 64)
    upper = packed[order] >> np.uint64(SELDOM_BITS)
    equal = np.r_[False, upper[1:] == upper[:-1], False]
    tied = np.flatnonzero(equal[1:] | equal[:-1])[: len(order)]
    rows = order[tied]
    order[tied] = rows[np.lexsort((v[rows], u[rows], hashes[rows], packed[rows]))]
    return order
