"""Slow twin of ``emslice/ops/region_graph.py``: a dict of contacts."""

import numpy as np


def contacts_of(affinity, labels):
    """Codes of all contacts of every pair: dict of (u, v), u < v, to a list of integers."""
    found = {}
    for place in np.ndindex(labels.shape):
        for axis in range(3):
            if place[axis] == 0:
                continue
            before = tuple(n - (k == axis) for k, n in enumerate(place))
            u, v = sorted((int(labels[before]), int(labels[place])))
            if u != v and u != 0:
                found.setdefault((u, v), []).append(int(affinity[(axis, *place)]))
    return found


def codes_of(histograms):
    """Codes of all contacts of each row, sorted: a list of lists of integers."""
    found, place = [], 0
    for size in histograms.size.tolist():
        here = slice(place, place + size)
        runs = zip(histograms.code[here].tolist(), histograms.number[here].tolist(), strict=True)
        found.append([code for code, number in runs for _ in range(number)])
        place += size
    assert place == len(histograms.code) == len(histograms.number)
    return found


def as_dict(graph):
    """A `RegionGraph` as a dict of (u, v) to (contacts, total, highest, codes or [])."""
    columns = (graph.contacts, graph.total, graph.highest)
    codes = codes_of(graph.histograms) or [[]] * len(graph)
    rows = zip(*(c.tolist() for c in columns), codes, strict=True)
    return dict(zip(map(tuple, graph.edges.tolist()), rows, strict=True))
