"""Edges a second of agglomeration alone, and how the time of an edge grows.

    python -m benchmarks.agglomeration [--codes CODES.npy] [--largest 10_000_000]

``agglomerate`` on one thread, from base pairs to merges: once on the region graph of real
affinities (uint8 codes, shape (3, Z, Y, X), as `emslice.predict_affinities` gives them), then on
lattices of growing size whose statistics are like real ones, and on degenerate ones. Medians of
seconds of this process (`time.process_time`), so that other work on the machine matters less.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from emslice.ops.agglomerate import agglomerate
from emslice.ops.histograms import Histograms, histograms_of
from emslice.ops.linkage import LINKAGES, Linkage, integer_threshold
from emslice.ops.region_graph import RegionGraph
from emslice.stages.agglomerate import oversegment

LOWEST = integer_threshold(0.3)
DIAGONALS = [(0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0)]


def measure(what: str, graph: RegionGraph, ids: NDArray[np.uint64], repeats: int) -> None:
    """Print the edges a second of every linkage for which the graph has statistics."""
    for name in LINKAGES:
        if Linkage(name).needs_histograms and len(graph.histograms.size) < len(graph):
            continue
        seconds = []
        for _ in range(repeats):
            begin = time.process_time()
            merges = len(agglomerate(graph, ids, LOWEST, Linkage(name)).merges)
            seconds.append(time.process_time() - begin)
        took = float(np.median(seconds))
        print(
            f"| {what} | {name} | {len(graph):,} | {merges:,} | {took:.3f} "
            f"| {len(graph) / took / 1e6:.2f} | {took / len(graph) * 1e9:.0f} |",
            flush=True,
        )


def lattice(n_edges: int, codes: str, seed: int = 7) -> tuple[RegionGraph, NDArray[np.uint64]]:
    """Nodes of a 3D lattice, each with 12 neighbours; as many edges a node as fragments have.

    ``codes``: "like real ones" (a quarter saturated, the others anywhere), "random", or one code.
    """
    rng = np.random.default_rng(seed)
    side = max(2, round((n_edges / 6) ** (1 / 3)))
    number = np.arange(1, side**3 + 1, dtype=np.int32).reshape(side, side, side)
    edges = []
    for z, y, x in DIAGONALS:
        low, high = number[: side - z, : side - y, : side - x], number[z:, y:, x:]
        edges.append(np.stack([low.ravel(), high.ravel()], axis=1))
    pairs = np.concatenate(edges)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    n = len(pairs)
    if codes == "like real ones":
        highest = np.where(rng.random(n) < 0.24, 255, rng.integers(0, 256, n)).astype(np.uint8)
    elif codes == "random":
        highest = rng.integers(0, 256, n).astype(np.uint8)
    else:
        highest = np.full(n, int(codes), np.uint8)
    contacts = 1 + rng.exponential(55, n).astype(np.int64)
    graph = RegionGraph(pairs, contacts, contacts * highest, highest, _spread(highest, contacts))
    return graph, np.arange(number.size + 1, dtype=np.uint64)


def _spread(highest: NDArray[np.uint8], contacts: NDArray[np.int64]) -> Histograms:
    """Histograms of up to 16 codes from the largest down, which share the contacts."""
    runs = np.minimum(np.minimum(contacts, 16), highest.astype(np.int64) + 1)
    row = np.repeat(np.arange(len(runs)), runs)
    place = np.arange(len(row)) - np.repeat(np.cumsum(runs) - runs, runs)
    code = (highest[row] - runs[row] + 1 + place).astype(np.uint8)
    share, rest = contacts // runs, contacts % runs
    return histograms_of(row, code, share[row] + (place < rest[row]), len(runs))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codes", help="affinities, .npy")
    parser.add_argument("--largest", type=int, default=10_000_000, help="edges")
    arguments = parser.parse_args()
    for name in LINKAGES:  # compile
        agglomerate(*lattice(1000, "random"), LOWEST, Linkage(name))
    print("| graph | linkage | edges | merges | s | M edges/s | ns/edge |")
    print("|---|---|---|---|---|---|---|")
    if arguments.codes:
        parts = oversegment(np.load(arguments.codes), histograms=True)
        measure("real", parts.graph, parts.fragments.ids, 9)
    size = 100_000
    while size <= arguments.largest:
        measure("like real ones", *lattice(size, "like real ones"), 5 if size < 5e6 else 1)
        size *= 10
    for codes in ("random", "255", "0", "128"):
        measure(f"codes {codes}", *lattice(1_000_000, codes), 3)


if __name__ == "__main__":
    main()
