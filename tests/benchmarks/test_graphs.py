"""The large graphs of the benchmark are those of a mirrored volume."""

import numpy as np
import pytest

from emslice.ops.fragments import make_fragments
from emslice.ops.region_graph import extract_edges

graphs = pytest.importorskip("benchmarks.graphs")


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_a_mirrored_graph_is_that_of_the_mirrored_volume(copies):
    codes = np.random.default_rng(1).integers(0, 256, (3, 4, 13, 17)).astype(np.uint8)
    fragments = make_fragments(codes)
    firsts = np.array([section[section > 0].min() for section in fragments.labels])
    graph = extract_edges(codes, fragments.labels)
    made, n_nodes = graphs.mirrored(graph, firsts, fragments.n_roots, copies)

    sections, links = [0, 1, 2, 3], [0, 1, 2, 3]  # links: whose code along z joins a section
    for copy in range(1, copies):
        sections += [2, 1, 0] if copy % 2 else [1, 2, 3]
        links += [3, 2, 1] if copy % 2 else [1, 2, 3]
    large = codes[:, sections].copy()
    large[0] = codes[0, links]
    parts, before = [], 0
    for z in sections:
        section = fragments.labels[z]
        parts.append(np.where(section > 0, section - firsts[z] + 1 + before, 0))
        before = max(before, int(parts[-1].max()))
    want = extract_edges(large, np.stack(parts).astype(np.int32))
    assert n_nodes == before
    for column in ("edges", "contacts", "total", "highest"):
        np.testing.assert_array_equal(getattr(made, column), getattr(want, column))
