"""What must wait on real affinities, in one pass and rung by rung (docs/design/0010-contagion.md).

    python -m benchmarks.contagion CODES.npy [--linkage quantile_max] [--boxes 8]

CODES: uint8, shape (3, Z, Y, X). Boxes of a quarter and half of the sides, spread over the volume,
and the volume itself, each as a node whose faces are open; figures are means over the boxes.
"""

from __future__ import annotations

import itertools
from dataclasses import fields

import click
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchmarks.contagion_loop import Step, floor_of, keys, step
from emslice.geometry.boxes import Roi
from emslice.ops.contacts import contacts_of
from emslice.ops.linkage import SCALE, Linkage, integer_threshold
from emslice.ops.open_graph import OpenGraph, base_graph
from emslice.stages.agglomerate import Oversegmentation, oversegment

Bools = NDArray[np.bool_]

ONE_PASS = (0.5, 0.3, 0.1)
SATURATED = (400, 200, 100, 50, 20, 0)
"""Contacts at which rows of the highest score are cut; most are."""

BELOW = (0.99, 0.98, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.45, 0.4, 0.35, 0.3)
RUNGS = [*((255 / 256, n) for n in SATURATED), *((t, 0) for t in BELOW)]


class Box:
    """Which fragments lie in a box, and which of them on its faces; by dense number."""

    def __init__(self, roi: Roi, parts: Oversegmentation) -> None:
        labels, n = parts.fragments.labels[roi.to_slices()], len(parts.fragments.ids)
        self.inside, self.touching = np.zeros(n, bool), np.zeros(n, bool)
        self.inside[labels.ravel()] = True
        for axis in range(3):
            for place in (0, -1):
                self.touching[np.take(labels, place, axis).ravel()] = True
        self.inside[0] = self.touching[0] = False


def boxes_of(parts: Oversegmentation, most: int) -> dict[str, list[Box]]:
    """Boxes by their shape, at most about so many of each."""
    shape = parts.fragments.labels.shape
    found = {}
    for parts_of_side in (4, 2, 1):
        size = tuple(n // parts_of_side for n in shape)
        places = itertools.product(
            *(range(0, n - s + 1, s) for n, s in zip(shape, size, strict=True))
        )
        rois = [Roi(place, size) for place in places]
        found["x".join(map(str, size))] = [
            Box(roi, parts) for roi in rois[:: max(1, len(rois) // most)]
        ]
    return found


@click.command()
@click.argument("codes", type=click.Path(exists=True))
@click.option("--linkage", "name", default="quantile_max", show_default=True)
@click.option("--boxes", "most", default=8, show_default=True, help="Of each size.")
def main(codes: str, name: str, most: int) -> None:
    """Print what waits."""
    linkage = Linkage(name)
    parts = oversegment(np.load(codes), histograms=linkage.needs_histograms)
    ids = parts.fragments.ids
    graph, boxes = base_graph(contacts_of(parts.graph, ids), linkage), boxes_of(parts, most)
    for size, some in boxes.items():
        for lowest, lone in itertools.product(ONE_PASS, (False, True)):
            found = np.mean([one_pass(graph, box, ids, lowest, linkage, lone) for box in some], 0)
            rule = "a lone open neighbour takes" if lone else "as it is"
            print(f"{size} to {lowest:g}, {rule}: open nodes {found[0]:.0f}, rows {found[1]:.0f}")
    cluster, table = ids.copy(), {size: [] for size in boxes}
    for score, contacts in RUNGS:
        floor = floor_of(graph, min(integer_threshold(score), 255 * SCALE // 256), contacts)
        for size, some in boxes.items():
            rows = [rung(graph, floor, box, cluster, linkage) for box in some]
            table[size].append(np.mean(rows, 0))
            print(f"{score:.3f} {contacts:4d} {size}: " + show(table[size][-1]), flush=True)
        done = step(graph, floor, ids[:0], linkage, False)
        graph, cluster = done.graph, renamed(cluster, done.links)
    for size, rows in table.items():
        print(f"{size} largest: {show(np.max(rows, 0))}\n{size} sum: {show(np.sum(rows, 0))}")


def show(row: NDArray[np.float64]) -> str:
    """Figures of a rung with their names."""
    names = ("contaminated", "stuck", "stuck rows", "joint rows", "extended", "extended rows")
    return ", ".join(f"{name} {value:.1f}" for name, value in zip(names, row, strict=True))


def one_pass(
    graph: OpenGraph, box: Box, ids: NDArray[np.uint64], lowest: float, linkage: Linkage, lone: bool
) -> tuple[int, int]:
    """Open nodes and rows of a box in one pass down to a threshold."""
    own = kept(graph, np.isin(graph.pairs, ids[box.inside]).all(axis=1))
    done = step(own, floor_of(own, integer_threshold(lowest)), ids[box.touching], linkage, lone)
    rows = np.isin(done.graph.pairs, done.waiting).all(axis=1).sum()
    return len(np.union1d(done.waiting, ids[box.touching])), int(rows)


def rung(
    graph: OpenGraph, floor: int, box: Box, cluster: NDArray[np.uint64], linkage: Linkage
) -> tuple[int, ...]:
    """Of a box at one rung, given all merges above it: see `show`.

    Joint rows lie between two extended clusters of one component; extended rows between any two.
    """
    nodes, own = np.unique(graph.pairs), np.unique(cluster[box.inside])
    edges, strong = np.searchsorted(nodes, graph.pairs), keys(graph, linkage) >= floor
    component = components(len(nodes), edges[strong])
    outside = np.r_[cluster[box.touching], cluster[1:][~box.inside[1:]]]
    mine = kept(graph, np.isin(graph.pairs, own).all(axis=1))
    done = step(mine, floor, np.intersect1d(own, outside), linkage, False)
    names = np.unique(done.graph.pairs)
    ends = np.searchsorted(names, done.graph.pairs)
    group = component[np.searchsorted(nodes, names)]
    extended = np.isin(names, outside)
    waits = np.isin(names, done.waiting) & ~extended
    stuck = stuck_nodes(ends, group, waits, extended)
    same, between = group[ends[:, 0]] == group[ends[:, 1]], extended[ends].all(axis=1)
    rows = same & (stuck | extended)[ends].all(axis=1) & stuck[ends].any(axis=1)
    hit = waits & np.isin(np.arange(len(names)), ends[_strong(done, floor)])
    joint = int((between & same).sum())
    return (
        int(hit.sum()),
        int(stuck.sum()),
        int(rows.sum()),
        joint,
        int(extended.sum()),
        int(between.sum()),
    )


def _strong(done: Step, floor: int) -> Bools:
    return np.asarray(done.key >= floor)


def stuck_nodes(
    ends: NDArray[np.int64], group: NDArray[np.int32], waits: Bools, extended: Bools
) -> Bools:
    """Closed nodes in pieces with two or more extended neighbours in their component."""
    same = group[ends[:, 0]] == group[ends[:, 1]]
    piece = components(len(group), ends[same & waits[ends].all(axis=1)])
    mixed = ends[same & waits[ends].any(axis=1) & extended[ends].any(axis=1)]
    first = waits[mixed[:, 0]]
    closed, other = np.where(first, mixed.T, mixed.T[::-1])
    found = np.unique(np.stack([piece[closed], other], axis=1), axis=0)
    number = np.bincount(found[:, 0], minlength=len(group))
    return np.asarray(waits & (number[piece] > 1))


def components(n: int, edges: NDArray[np.int64]) -> NDArray[np.int32]:
    """Number of the component of each node."""
    ones = np.ones(len(edges), np.int8)
    found: NDArray[np.int32] = connected_components(coo_array((ones, edges.T), (n, n)), False)[1]
    return found


def renamed(cluster: NDArray[np.uint64], links: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Cluster of each fragment after some more merges."""
    if not len(links):
        return cluster
    child, parent = links[np.argsort(links[:, 0])].T
    cluster = cluster.copy()
    while (
        hit := child[at := np.searchsorted(child, cluster).clip(max=len(child) - 1)] == cluster
    ).any():
        cluster[hit] = parent[at[hit]]
    return cluster


def kept(graph: OpenGraph, keep: Bools) -> OpenGraph:
    """Some rows of a graph."""
    rows = np.flatnonzero(keep)
    size = np.diff(graph.run_start)[rows]
    start = np.r_[0, np.cumsum(size)]
    runs = np.arange(start[-1]) + np.repeat(graph.run_start[rows] - start[:-1], size)
    columns = {f.name: getattr(graph, f.name) for f in fields(graph)}
    new = {name: column[rows] for name, column in columns.items() if not name.startswith("run_")}
    new |= {name: columns[name][runs] for name in ("run_code", "run_number")}
    return OpenGraph(**new, run_start=start)


if __name__ == "__main__":
    main()
