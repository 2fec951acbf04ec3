"""How good a segmentation is. Never here: files, thresholds, plots."""

from emslice.metrics.contingency import Contingency, Scores, count_overlaps

__all__ = ["Contingency", "Scores", "count_overlaps"]
