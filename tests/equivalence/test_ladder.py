"""A graph worked off in steps, with few rows in memory, ends as one that is in memory."""

import numpy as np
import pytest
from equivalence.ladders import climb
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.strategies import graph_of, id_lists, linkages, multigraphs, thresholds

from emslice.ops.contacts import contacts_of
from emslice.ops.linkage import integer_threshold
from emslice.ops.open_graph import base_graph, decide, join_graphs

BUDGETS = st.sampled_from([1, 600, 3000, 10_000, 10**9])


@st.composite
def sources(draw, **limits):
    """Tables of base pairs, as blocks hand them up; some pairs are in several."""
    n, rows = draw(multigraphs(**limits))
    ids = draw(id_lists(n))
    owner = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 3, len(rows))
    tables = [[row for row, k in zip(rows, owner, strict=True) if k == i] for i in range(3)]
    return [contacts_of(graph_of(table), ids) for table in tables]


def assert_same(tables, linkage, lowest, budget, share_of_open, seed):
    """Merges, rest and open names are those of `decide`, to the last bit."""
    graphs = [base_graph(table, linkage) for table in tables]
    ids = np.unique(np.concatenate([graph.pairs.ravel() for graph in graphs]))
    touching = ids[np.random.default_rng(seed).random(len(ids)) < share_of_open]
    lowest = integer_threshold(lowest)
    whole = decide(join_graphs(graphs, linkage), touching, lowest, linkage)
    steps, found = climb(graphs, touching, lowest, linkage, budget)
    for name in ("child", "parent", "score"):
        np.testing.assert_array_equal(getattr(found.merges, name), getattr(whole.merges, name))
    np.testing.assert_array_equal(found.open_names, whole.open_names)
    for name in whole.rest.__dataclass_fields__:
        expected, got = getattr(whole.rest, name), getattr(found.rest, name)
        np.testing.assert_array_equal(got, expected, err_msg=name)
        assert got.dtype == expected.dtype
    return steps


cases = {
    "tables": sources(max_nodes=40, max_rows=160),
    "linkage": linkages,
    "lowest": thresholds,
    "budget": BUDGETS,
    "share_of_open": st.sampled_from([0.0, 0.1, 0.5]),
    "seed": st.integers(0, 99),
}


@settings(max_examples=120, deadline=None, derandomize=True)
@given(**cases)
def test_the_ladder_ends_where_one_graph_in_memory_does(**case):
    assert_same(**case)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None)
@given(**cases)
def test_many_more_ladders_do_too(**case):
    assert_same(**case)
