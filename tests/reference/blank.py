"""Slow twin of ``emslice/ops/blank.py``."""

import numpy as np


def blank_by_squares(raw, side):
    """Where a voxel lies in some all-zero square of ``side`` that lies inside its section."""
    blank = np.zeros(raw.shape, bool)
    height, width = (min(side, n) for n in raw.shape[1:])
    for z, section in enumerate(raw):
        for y in range(section.shape[0] - height + 1):
            for x in range(section.shape[1] - width + 1):
                if not section[y : y + height, x : x + width].any():
                    blank[z, y : y + height, x : x + width] = True
    return blank
