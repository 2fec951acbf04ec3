"""A graph worked off in steps, with few rows in memory, ends as one that is in memory."""

import numpy as np
import pytest
from equivalence.blocks import roi_in, segment_in_blocks, whole
from equivalence.ladders import climb, joining
from equivalence.test_blocks_equal_whole import cases as volumes
from equivalence.test_blocks_equal_whole import random_affinity
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.strategies import graph_of, id_lists, linkages, multigraphs, thresholds

from emslice.ops.contacts import combine, contacts_of
from emslice.ops.dust import DustRule
from emslice.ops.linkage import LINKAGES, Linkage, integer_threshold
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


def check_volume(case, budget):
    affinity = random_affinity(case)
    roi, domain = roi_in(case["shape"], case["offset"], case["margin"])
    dust = DustRule(case["min_size"], case["alone"])
    method = (case["linkage"], max(0.5, case["lowest"]), case["lowest"], case["radius"], dust)
    join = joining(budget)
    blocks, merges = segment_in_blocks(affinity, roi, domain, case["block"], *method, join=join)
    segments, all_merges = whole(affinity, roi, domain, *method)
    assert merges == all_merges
    np.testing.assert_array_equal(blocks, segments)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(volumes, st.sampled_from([5000, 20_000]))
def test_a_volume_whose_nodes_go_down_the_ladder_is_that_of_the_whole(case, budget):
    check_volume(case, budget)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(volumes, BUDGETS)
def test_many_more_volumes_are_too(case, budget):
    check_volume(case, budget)


@pytest.mark.parametrize("name", LINKAGES)
def test_saturated_rows_are_cut_by_contacts_and_hash(name):
    rng = np.random.default_rng(3)
    rows = [(u, v, {255: int(rng.integers(1, 4))}) for u in range(1, 9) for v in range(u + 1, 14)]
    table = contacts_of(graph_of(rows), np.arange(14, dtype=np.uint64) ** 2)
    steps = assert_same([table, combine([])], Linkage(name), 0.3, 6000, 0.0, 0)
    assert len(steps) > 2
    assert {step.cut for step in steps[:-1]} == {255 / 256}


def test_two_nodes_of_any_degree_are_a_component_of_one_row():
    rows = [(1, v, {200 - v: 1}) for v in range(2, 40)]
    table = contacts_of(graph_of(rows), np.arange(40, dtype=np.uint64))
    steps = assert_same([table], Linkage("mean"), 0.3, 1, 0.0, 0)
    assert {step.components for step in steps} == {1}
    assert len(steps) == 38
