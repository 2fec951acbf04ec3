"""A box of affinities in memory, cut at many thresholds: agglomerated once, down to the lowest.

A cut at T is what a run at T gives, byte for byte, its dust joined anew. Rainfall fragments and
exact agglomeration only: other methods know no merge but those at one threshold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emslice.errors import ConfigError
from emslice.ops.contacts import contacts_of
from emslice.ops.dust import DustRule, add_up, segment_rows, settle
from emslice.ops.fragments import RADIUS, make_fragments
from emslice.ops.linkage import Linkage
from emslice.ops.merge_tree import MergeTree
from emslice.ops.oversegmentation import Oversegmentation, grow
from emslice.ops.region_graph import extract_edges


@dataclass(frozen=True)
class Cuts:
    """Fragments, and what each of them belongs to at every threshold."""

    labels: NDArray[np.int32]
    """Shape (Z, Y, X). Numbers of fragments; 0 is masked."""

    segments: dict[float, NDArray[np.uint64]]
    """Threshold -> segment of each number, shape (N + 1,); thresholds ascend, 0 is no segment."""

    def at(self, threshold: float) -> NDArray[np.uint64]:
        """Segmentation at one of the thresholds, shape (Z, Y, X)."""
        segmentation: NDArray[np.uint64] = self.segments[threshold][self.labels]
        return segmentation


def cut_affinities(
    codes: NDArray[np.uint8],
    thresholds: Iterable[float],
    linkage: Linkage | None = None,
    dust: DustRule | None = None,
    *,
    radius: int = RADIUS,
    dimensions: int = 2,
    workers: int = 1,
) -> Cuts:
    """Segmentations of a volume of affinities at some thresholds.

    Parameters
    ----------
    codes : uint8, shape (3, Z, Y, X)
    thresholds : affinities, at least one
    linkage : Linkage, optional
        ``quantile_max`` at 50 percent by default.
    dust : DustRule, optional
        By default nothing is dust.
    """
    linkage = linkage or Linkage()
    fragments = make_fragments(codes, radius=radius, workers=workers, dimensions=dimensions)
    graph = extract_edges(codes, fragments.labels, workers, linkage.needs_histograms)
    parts, wanted = Oversegmentation(fragments, graph), sorted(set(thresholds))
    if not wanted:
        raise ConfigError("thresholds: none given; at least one is needed.")
    return cut_parts(parts, grow(parts, linkage, wanted[0]), wanted, dust)


def cut_parts(
    parts: Oversegmentation,
    tree: MergeTree,
    thresholds: Iterable[float],
    dust: DustRule | None = None,
) -> Cuts:
    """As `cut_affinities`, from fragments and their merges.

    Notes
    -----
    From the highest threshold down: contacts and sizes of the last cut are all that the next one
    needs to know of dust, and they become fewer.
    """
    fragments, segments = parts.fragments, {}
    rows = contacts_of(parts.graph, fragments.ids)
    sizes = add_up(fragments.ids, fragments.voxels)
    nothing = np.zeros(0, np.uint64)
    for threshold in sorted(set(thresholds), reverse=True):
        lut = tree.cut(threshold)
        if dust is not None and dust.min_size > 0:
            rows = segment_rows(rows, lut)
            sizes = add_up(lut.apply(sizes.names), sizes.voxels)
            lut = lut.then(settle(rows, sizes, nothing, dust).targets)
        segments[threshold] = lut.apply(fragments.ids)
    return Cuts(fragments.labels, dict(sorted(segments.items())))
