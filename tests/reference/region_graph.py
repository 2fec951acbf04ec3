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


def as_dict(graph):
    """A `RegionGraph` as a dict of (u, v) to (contacts, total, highest)."""
    columns = (graph.contacts, graph.total, graph.highest)
    rows = zip(*(c.tolist() for c in columns), strict=True)
    return dict(zip(map(tuple, graph.edges.tolist()), rows, strict=True))
