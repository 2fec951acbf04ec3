"""Slow twin of ``emslice/ops/agglomerate.py``: whole-volume greedy, no queue, exact rationals.

At every step all edges are looked at and the best is taken. A row keeps every sample; a score is a
`Fraction` of 1.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import floor

from reference.region_graph import codes_of

MASK = 2**64 - 1


def splitmix64(x):
    """The finaliser of splitmix64 in Python integers."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def hash_of(u, v):
    """Hash of a pair of ids."""
    return splitmix64(splitmix64(u) ^ v)


@dataclass
class Row:
    """One pair of clusters and what is known of it."""

    maxima: list
    """Largest codes of the base pairs, sorted."""

    codes: list
    """Codes of all contacts, sorted."""

    total: int
    contacts: int
    tie: tuple
    """(-contacts, hash, u, v) of a base pair: smaller is better."""

    def union(self, other, better_tie=False):
        """Two pairs that became one."""
        tie = (min if better_tie else max)(self.tie, other.tie)
        maxima, codes = sorted(self.maxima + other.maxima), sorted(self.codes + other.codes)
        return Row(maxima, codes, self.total + other.total, self.contacts + other.contacts, tie)


def make_score(linkage, exact=False):
    """Function from a row to its score, a Fraction; a mean is floored to 2^-16 of a code."""

    def quantile(row):
        samples = row.maxima if linkage.name == "quantile_max" else row.codes
        return Fraction(samples[floor(Fraction(linkage.quantile * len(samples), 100))], 256)

    def mean(row):
        codes = Fraction(row.total, row.contacts)
        return codes / 256 if exact else Fraction(floor(codes * 2**16), 2**24)

    return mean if linkage.name == "mean" else quantile


def rows_of(graph, ids):
    """Dict of (u, v), dense numbers, to the row of a base pair."""
    rows = {}
    columns = (graph.edges, graph.contacts, graph.total, graph.highest)
    codes = codes_of(graph.histograms) or [[]] * len(graph)
    for (u, v), n, total, highest, own in zip(*(c.tolist() for c in columns), codes, strict=True):
        a, b = int(ids[u]), int(ids[v])
        rows[u, v] = Row([highest], own, total, n, (-n, hash_of(a, b), a, b))
    return rows


def greedy(rows, lowest, score, open_nodes=(), better_tie=False):
    """Merges [(child, parent, score)] in the order made, and the set of open nodes at the end.

    The best edge among those that are not between two open nodes is taken: with one end open, both
    ends open; else it is merged. Stops below ``lowest``.
    """
    rows, waiting, merges = dict(rows), set(open_nodes), []
    scores = {pair: score(row) for pair, row in rows.items()}
    while True:
        ready = [p for p in rows if scores[p] >= lowest and not waiting.issuperset(p)]
        if not ready:
            return merges, waiting
        u, v = min(ready, key=lambda p: (-scores[p], rows[p].tie))
        if u in waiting or v in waiting:
            waiting |= {u, v}
            continue
        merges.append((v, u, scores[u, v]))
        del rows[u, v]
        for pair in [p for p in rows if v in p]:
            row, other = rows.pop(pair), sum(pair) - v
            into = (min(u, other), max(u, other))
            rows[into] = rows[into].union(row, better_tie) if into in rows else row
            scores[into] = score(rows[into])


def partition(merges, threshold, n_nodes):
    """Smallest member of the cluster of each of the nodes 0 to n_nodes - 1."""
    name = list(range(n_nodes))
    for child, parent, score in merges:
        if score >= threshold:
            name = [parent if x == child else x for x in name]
    return name
