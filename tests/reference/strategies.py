"""Random small inputs with heavy ties, in shapes where a transposed axis shows."""

from collections import Counter

import numpy as np
from hypothesis import strategies as st

from emslice.ops.histograms import histograms_of
from emslice.ops.linkage import Linkage
from emslice.ops.region_graph import RegionGraph, combine

SHAPES = [(1, 1, 1), (2, 1, 7), (1, 11, 1), (3, 2, 5), (1, 7, 9), (2, 5, 3), (4, 3, 3), (1, 3, 13)]
PALETTES = [
    (0,),
    (255,),
    (0, 255),
    (127, 128),
    (0, 127, 128, 255),
    (0, 60, 128, 190, 255),
    tuple(range(256)),
]

some_shapes, some_palettes = st.sampled_from(SHAPES), st.sampled_from(PALETTES)
linkages = st.sampled_from(
    [Linkage("mean")]
    + [Linkage(name, q) for name in ("quantile_max", "quantile") for q in (0, 25, 50, 75, 99)]
)
thresholds = st.sampled_from([0.0, 0.125, 0.3, 0.5, 0.75, 0.99])


@st.composite
def codes(draw, shapes=some_shapes, palettes=some_palettes):
    """Affinity codes, shape (3, Z, Y, X)."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return random.choice(np.array(draw(palettes), np.uint8), (3, *draw(shapes)))


def graph_of(rows):
    """`RegionGraph` of (u, v, {code: number}); equal pairs are combined."""
    parts = [
        RegionGraph(
            np.array([sorted((u, v))], np.int32),
            np.array([sum(codes.values())], np.int64),
            np.array([sum(code * number for code, number in codes.items())], np.int64),
            np.array([max(codes)], np.uint8),
            histograms_of(
                np.zeros(len(codes), np.int64),
                np.array(sorted(codes), np.uint8),
                np.array([codes[code] for code in sorted(codes)], np.int64),
                1,
            ),
        )
        for u, v, codes in rows
    ]
    nothing = np.zeros(0, np.int64)
    empty = RegionGraph(np.zeros((0, 2), np.int32), nothing, nothing, nothing.astype(np.uint8))
    return combine([*parts, empty])


@st.composite
def multigraphs(draw, max_nodes=14, max_rows=40):
    """Number of nodes and rows (u, v, {code: number}), pairs repeated, few levels."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, n_rows = draw(st.integers(2, max_nodes)), draw(st.integers(0, max_rows))
    levels = random.integers(0, 256, draw(st.integers(1, 6)))
    rows = []
    for _ in range(n_rows):
        u, v = (int(k) for k in random.choice(np.arange(1, n + 1), 2, replace=False))
        codes = random.choice(levels, random.integers(1, 4))
        rows.append((u, v, Counter(codes.tolist())))
    return n, rows


@st.composite
def id_lists(draw, n):
    """Ids of n fragments with the background's 0 in front: ascending, with gaps."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    gaps = random.integers(1, draw(st.sampled_from([2, 100, 2**40])), n)
    return np.concatenate([[0], np.cumsum(gaps)]).astype(np.uint64)
