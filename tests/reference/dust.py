"""Slow twin of ``emslice/ops/dust.py``: one small segment at a time, from voxels."""

import numpy as np
from reference.region_graph import contacts_of


def without_dust(affinity, segments, min_size, alone):
    """Segmentation (Z, Y, X) in which small segments joined large ones, or are gone."""
    sizes = dict(zip(*(a.tolist() for a in np.unique(segments, return_counts=True)), strict=True))
    pairs = contacts_of(affinity, segments)
    result = segments.copy()
    for small, size in sizes.items():
        if small == 0 or size >= min_size:
            continue
        offers = [
            (-sum(codes), -len(codes), sum(pair) - small)
            for pair, codes in pairs.items()
            if small in pair and sizes[sum(pair) - small] >= min_size
        ]
        if offers:
            result[segments == small] = min(offers)[2]
        elif alone == "drop":
            result[segments == small] = 0
    return result
