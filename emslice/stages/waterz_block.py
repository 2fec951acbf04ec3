"""Agglomeration of a run's only block by waterz, at one threshold."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emslice.geometry.octree import Node
from emslice.ops.faces import Sides
from emslice.ops.ladder import Climbed
from emslice.ops.linkage import SCALE, Linkage, integer_threshold
from emslice.ops.merge_tree import MergeTree
from emslice.ops.waterz_method import waterz_lut
from emslice.stages.agglomeration import AgglomerateBlocks
from emslice.volumes import open_volume


@dataclass(frozen=True)
class WaterzBlock(AgglomerateBlocks):
    """Merges by waterz. They have no order and all get the score of the threshold."""

    threshold: float = 0.5

    def _leaf(self, node: Node) -> tuple[Climbed, Sides]:
        # Nothing reaches SCALE, and nothing is open in a run's only block: an empty graph is left.
        # Whatever the linkage: fragments come without histograms for waterz.
        nothing = replace(self, lowest=SCALE, linkage=Linkage("mean"))
        found, sides = super(WaterzBlock, nothing)._leaf(node)
        if self._is_hole(node):
            return found, sides
        return replace(found, merges=self._merges(node)), sides

    def _merges(self, node: Node) -> MergeTree:
        box = self.frame.octree.box(node)
        fragments = self.stitched.fragments
        labels = open_volume(fragments.path).read(box)
        ids, dense = np.unique(labels, return_inverse=True)
        if ids[0] != 0:
            ids, dense = np.concatenate([np.zeros(1, ids.dtype), ids]), dense + 1
        numbers: NDArray[np.int32] = np.asarray(dense, np.int32).reshape(labels.shape)
        codes = fragments.affinities.read(box)
        lut = waterz_lut(codes, numbers, ids, self.threshold, self.linkage)
        moved = lut.fragments != lut.segments
        score = integer_threshold(self.threshold)
        scores = np.full(int(moved.sum()), min(score, SCALE), np.int32)
        return MergeTree(lut.fragments[moved], lut.segments[moved], scores, score)
