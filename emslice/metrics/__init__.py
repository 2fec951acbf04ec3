"""How good a segmentation is. Never here: files, thresholds, plots."""

from emslice.metrics.contingency import Contingency, Scores, count_overlaps
from emslice.metrics.merging import MergingSegments

__all__ = ["Contingency", "MergingSegments", "Scores", "count_overlaps"]
