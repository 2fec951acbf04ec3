"""Contrast-limited adaptive histogram equalisation, one voxel at a time, in fractions."""

from fractions import Fraction
from math import floor


def table_of(histogram, clip):
    """What the grey values of a cell become."""
    n = sum(histogram)
    limit = max(1, floor(Fraction(round(256 * clip), 256) * n / 256))
    clipped = [min(count, limit) for count in histogram]
    excess = n - sum(clipped)
    share = [floor(Fraction(k * excess, 256)) for k in range(257)]
    flat = [clipped[k] + share[k + 1] - share[k] for k in range(256)]
    assert sum(flat) == n
    return [floor(Fraction(255 * sum(flat[: v + 1]), n) + Fraction(1, 2)) if n else 0
            for v in range(256)]  # fmt: skip


def around(place, cell, length):
    """The two cells whose centres a place lies between, each with its weight."""
    where = Fraction(2 * place + 1, 2 * cell) - Fraction(
        1, 2
    )  # 0 at the first centre, 1 at the next
    low, last = floor(where), (length - 1) // cell
    share = where - low
    return [(min(max(low, 0), last), 1 - share), (min(max(low + 1, 0), last), share)]


def clahe(section, cell, clip):
    """A section of uint8, equalised; 0 counts nowhere and stays 0."""
    height, width = section.shape
    histograms = {}
    for y in range(height):
        for x in range(width):
            histogram = histograms.setdefault((y // cell, x // cell), [0] * 256)
            if section[y, x]:
                histogram[section[y, x]] += 1
    tables = {place: table_of(histogram, clip) for place, histogram in histograms.items()}
    moved = section.copy()
    for y in range(height):
        for x in range(width):
            value, total, weights = int(section[y, x]), Fraction(0), Fraction(0)
            for cy, wy in around(y, cell, height):
                for cx, wx in around(x, cell, width):
                    weight = wy * wx * sum(histograms[cy, cx])
                    total += weight * tables[cy, cx][value]
                    weights += weight
            moved[y, x] = floor(total / weights + Fraction(1, 2)) if value else 0
    return moved
