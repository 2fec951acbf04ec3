"""How good a segmentation is. Never here: files, how segments are made, plots."""

from emslice.metrics.contingency import Contingency, Scores, count_overlaps
from emslice.metrics.cuts import SweepRow, ThresholdScores, best_row, score_cuts
from emslice.metrics.merging import MergingSegments

__all__ = [
    "Contingency",
    "MergingSegments",
    "Scores",
    "SweepRow",
    "ThresholdScores",
    "best_row",
    "count_overlaps",
    "score_cuts",
]
