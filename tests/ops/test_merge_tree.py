import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.agglomeration import partition
from reference.strategies import graph_of, id_lists, linkages, multigraphs

from emslice.errors import ConfigError
from emslice.ops.agglomerate import agglomerate
from emslice.ops.linkage import Linkage, integer_threshold
from emslice.ops.merge_tree import MergeTree, join_trees, merge_tree

default = settings(max_examples=100, derandomize=True, deadline=None)


@st.composite
def graphs(draw):
    n, rows = draw(multigraphs(max_nodes=30, max_rows=90))
    return graph_of(rows), draw(id_lists(n))


def tree_of(graph, ids, lowest, linkage):
    least = integer_threshold(lowest)
    return merge_tree(agglomerate(graph, ids, least, linkage), ids, least)


@default
@given(graph=graphs(), linkage=linkages, threshold=st.floats(0.125, 0.999))
def test_cutting_at_a_threshold_is_the_run_at_that_threshold(graph, linkage, threshold):
    _, ids = graph
    cut = tree_of(*graph, 0.125, linkage).cut(threshold).apply(ids)
    run = tree_of(*graph, threshold, linkage).cut(threshold).apply(ids)
    np.testing.assert_array_equal(cut, run)


@default
@given(graph=graphs(), linkage=linkages, threshold=st.floats(0, 1))
def test_a_segment_is_named_by_its_smallest_fragment(graph, linkage, threshold):
    table, ids = graph
    result = agglomerate(table, ids, 0, linkage)
    merges = [(c, p, s) for (c, p), s in zip(result.merges.tolist(), result.scores, strict=True)]
    expected = ids[partition(merges, integer_threshold(threshold), len(ids))]
    found = merge_tree(result, ids, 0).cut(threshold).apply(ids)
    np.testing.assert_array_equal(found, expected)


@default
@given(graph=graphs(), linkage=linkages)
def test_rows_are_sorted_by_child_with_smaller_parents(graph, linkage):
    tree = tree_of(*graph, 0.0, linkage)
    assert sorted(set(tree.child.tolist())) == tree.child.tolist()
    assert (tree.parent < tree.child).all()


@default
@given(graph=graphs(), linkage=linkages)
def test_a_higher_threshold_only_splits(graph, linkage):
    _, ids = graph
    tree = tree_of(*graph, 0.0, linkage)
    low, high = tree.cut(0.3).apply(ids), tree.cut(0.6).apply(ids)
    assert len(set(zip(low.tolist(), high.tolist(), strict=True))) == len(set(high.tolist()))


def test_cutting_twice_gives_the_same():
    graph = graph_of([(1, 2, {200: 1}), (2, 3, {150: 1}), (3, 4, {100: 1})])
    ids = np.array([0, 5, 9, 2**40, 2**63], np.uint64)
    tree = tree_of(graph, ids, 0.25, Linkage("mean"))
    assert tree.cut(0.5).apply(ids).tolist() == [0, 5, 5, 5, 2**63]
    assert tree.cut(0.25).apply(ids).tolist() == [0, 5, 5, 5, 5]
    assert tree.cut(0.5).apply(ids).tolist() == [0, 5, 5, 5, 2**63]


def test_a_score_at_the_threshold_is_merged_by_the_cut():
    ids = np.arange(4, dtype=np.uint64)
    tree = tree_of(graph_of([(1, 2, {128: 1}), (2, 3, {127: 1})]), ids, 0.25, Linkage())
    assert tree.cut(0.5).apply(ids).tolist() == [0, 1, 1, 3]


def test_below_the_lowest_threshold_is_refused_with_both_numbers():
    tree = tree_of(graph_of([(1, 2, {9: 1})]), np.arange(3, dtype=np.uint64), 0.3, Linkage())
    with pytest.raises(ConfigError, match=r"0\.25.*0\.3"):
        tree.cut(0.25)


def test_the_lowest_threshold_itself_can_be_cut():
    tree = tree_of(graph_of([(1, 2, {99: 1})]), np.arange(3, dtype=np.uint64), 0.3, Linkage())
    assert tree.cut(0.3).apply(np.arange(3, dtype=np.uint64)).tolist() == [0, 1, 1]


@default
@given(graph=graphs(), linkage=linkages, threshold=st.floats(0.125, 0.999), seed=st.integers(0, 99))
def test_the_tree_of_some_ids_cuts_those_ids_as_the_whole_tree_does(
    graph, linkage, threshold, seed
):
    _, ids = graph
    tree = tree_of(*graph, 0.125, linkage)
    some = ids[np.random.default_rng(seed).random(len(ids)) < 0.3]
    part = tree.of(some)
    expected = tree.cut(threshold).apply(some)
    np.testing.assert_array_equal(part.cut(threshold).apply(some), expected)
    for child in part.child:  # no more than needed: each is on the way up from one of them
        assert (tree.cut(0.125).apply(some) == tree.cut(0.125).apply(child[None])).any()


@default
@given(graph=graphs(), linkage=linkages, seed=st.integers(0, 99))
def test_pieces_of_a_tree_join_to_the_tree(graph, linkage, seed):
    tree = tree_of(*graph, 0.125, linkage)
    piece = np.random.default_rng(seed).integers(0, 3, len(tree.child))
    columns = (tree.child, tree.parent, tree.score)
    pieces = [MergeTree(*(c[piece == k] for c in columns), tree.lowest) for k in (2, 0, 1)]
    joined = join_trees(pieces)
    for name in ("child", "parent", "score"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(tree, name))
