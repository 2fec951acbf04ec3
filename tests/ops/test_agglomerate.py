from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from reference.agglomeration import greedy, make_score, partition, rows_of
from reference.strategies import codes, graph_of, id_lists, linkages, multigraphs, thresholds

from emslice.ops.agglomerate import agglomerate
from emslice.ops.fragments import make_fragments
from emslice.ops.linkage import LINKAGES, SCALE, Linkage, integer_threshold
from emslice.ops.region_graph import extract_edges

FEW_LEVELS = st.sampled_from([(0, 255), (0, 127, 128, 255), (1, 60, 128, 160, 190, 255)])
VOLUMES = st.sampled_from([(3, 2, 5), (2, 5, 7), (4, 3, 6), (5, 1, 9), (1, 11, 7)])
BY_VALUE = pytest.mark.parametrize("name", LINKAGES)
default = settings(max_examples=150, derandomize=True, deadline=None)
long = settings(
    max_examples=1500, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)


def merges_of(result):
    """Merges in the order made, [(child, parent, score)], scores as fractions of 1."""
    scores = [Fraction(s, SCALE) for s in result.scores.tolist()]
    return [(c, p, s) for (c, p), s in zip(result.merges.tolist(), scores, strict=True)]


def assert_same_as_twin(graph, ids, linkage, lowest):
    """Same merges with their scores, same order of scores, same partition at every threshold."""
    found = merges_of(agglomerate(graph, ids, integer_threshold(lowest), linkage))
    expected, _ = greedy(rows_of(graph, ids), Fraction(lowest), make_score(linkage))
    assert sorted(found) == sorted(expected)
    assert [s for *_, s in found] == [s for *_, s in expected]
    for threshold in (0.2, 0.5, 0.7, 0.9):
        parts = (partition(m, Fraction(threshold), len(ids)) for m in (found, expected))
        assert len(set(map(tuple, parts))) == 1


def graph_of_volume(affinity):
    fragments = make_fragments(affinity, radius=3)
    return extract_edges(affinity, fragments.labels, histograms=True), fragments.ids


@st.composite
def linkage_of(draw, name):
    """The linkage of that name, the quantile with any percentage."""
    return draw(linkages.filter(lambda linkage: linkage.name == name))


@st.composite
def graphs(draw, **limits):
    """A random graph and the ids of its fragments."""
    n, rows = draw(multigraphs(**limits))
    return graph_of(rows), draw(id_lists(n))


@st.composite
def pieces(draw):
    """A graph seen in part: the whole, a block's part, their ids, the part's open fragments.

    Fragments up to ``n_here`` are the block's. Contacts that the block has not seen lie between
    open fragments and those outside only; a pair of open fragments may have rows in both.
    """
    n, rows = draw(multigraphs(max_nodes=20, max_rows=60))
    n_here = draw(st.integers(1, n))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    is_open = random.random(n + 1) < draw(st.sampled_from([0.1, 0.4]))
    outside = is_open | (np.arange(n + 1) > n_here)
    rows = [r for r in rows if max(r[:2]) <= n_here or (outside[r[0]] and outside[r[1]])]
    seen = [
        r
        for r in rows
        if max(r[:2]) <= n_here and not (outside[r[0]] and outside[r[1]] and random.random() < 0.5)
    ]
    ids = draw(id_lists(n))
    return graph_of(rows), ids, graph_of(seen), ids[: n_here + 1], is_open[: n_here + 1]


@BY_VALUE
@default
@given(graph=graphs(), data=st.data(), lowest=thresholds)
def test_a_random_graph_merges_as_its_twin(name, graph, data, lowest):
    assert_same_as_twin(*graph, data.draw(linkage_of(name)), lowest)


@BY_VALUE
@default
@given(affinity=codes(VOLUMES, FEW_LEVELS), data=st.data(), lowest=thresholds)
def test_a_random_volume_merges_as_its_twin(name, affinity, data, lowest):
    assert_same_as_twin(*graph_of_volume(affinity), data.draw(linkage_of(name)), lowest)


@BY_VALUE
@settings(max_examples=8, derandomize=True, deadline=None)
@given(graph=graphs(max_nodes=90, max_rows=400), data=st.data())
def test_a_graph_with_hubs_merges_as_its_twin(name, graph, data):
    assert_same_as_twin(*graph, data.draw(linkage_of(name)), 0.0)


@pytest.mark.slow
@BY_VALUE
@long
@given(graph=graphs(max_nodes=40, max_rows=150), data=st.data(), lowest=thresholds)
def test_many_random_graphs_merge_as_their_twins(name, graph, data, lowest):
    assert_same_as_twin(*graph, data.draw(linkage_of(name)), lowest)


@pytest.mark.slow
@BY_VALUE
@long
@given(affinity=codes(VOLUMES, FEW_LEVELS), data=st.data(), lowest=thresholds)
def test_many_random_volumes_merge_as_their_twins(name, affinity, data, lowest):
    assert_same_as_twin(*graph_of_volume(affinity), data.draw(linkage_of(name)), lowest)


def test_a_twin_that_keeps_the_better_tie_is_caught():
    linkage = Linkage("quantile_max", 50)

    def differs(case):
        graph, ids = case
        found = merges_of(agglomerate(graph, ids, 0, linkage))
        rows, score = rows_of(graph, ids), make_score(linkage)
        return sorted(found) != sorted(greedy(rows, 0, score, better_tie=True)[0])

    few = settings(max_examples=2000, derandomize=True, deadline=None, database=None)
    assert differs(find(graphs(), differs, settings=few))


@default
@given(graph=graphs(max_nodes=30, max_rows=90), linkage=linkages)
def test_scores_never_rise_and_parents_are_smaller_and_children_appear_once(graph, linkage):
    result = agglomerate(*graph, 0, linkage)
    assert (np.diff(result.scores) <= 0).all()
    assert (result.merges[:, 1] < result.merges[:, 0]).all()
    assert len(np.unique(result.merges[:, 0])) == len(result.merges)


@default
@given(graph=graphs(), linkage=linkages, seed=st.integers(0, 2**32 - 1), lowest=thresholds)
def test_open_nodes_are_contagious_as_in_the_twin(graph, linkage, seed, lowest):
    table, ids = graph
    is_open = np.random.default_rng(seed).random(len(ids)) < 0.2
    found = agglomerate(table, ids, integer_threshold(lowest), linkage, is_open)
    start = np.flatnonzero(is_open).tolist()
    expected, waiting = greedy(rows_of(table, ids), Fraction(lowest), make_score(linkage), start)
    assert merges_of(found) == expected
    cluster = partition(expected, 0, len(ids))
    assert {cluster[k] for k in np.flatnonzero(found.open)} == waiting


def test_an_open_cluster_is_called_by_its_smallest_fragment():
    # Fragments 1 and 2 merge, then meet the open fragment 4.
    graph = graph_of([(1, 2, {200: 1}), (2, 3, {3: 1}), (2, 4, {150: 1})])
    is_open = np.arange(5) == 4
    result = agglomerate(graph, np.arange(5, dtype=np.uint64), 2**23, Linkage(), is_open)
    assert result.merges.tolist() == [[2, 1]]
    assert result.open[[1, 3, 4]].tolist() == [True, False, True]


@default
@given(graph=graphs(), linkage=linkages, seed=st.integers(0, 2**32 - 1), lowest=thresholds)
def test_with_open_nodes_every_merge_is_one_of_the_whole_graph(graph, linkage, seed, lowest):
    table, ids = graph
    least = integer_threshold(lowest)
    is_open = np.random.default_rng(seed).random(len(ids)) < 0.2
    some = merges_of(agglomerate(table, ids, least, linkage, is_open))
    assert set(some) <= set(merges_of(agglomerate(table, ids, least, linkage)))


@default
@given(piece=pieces(), linkage=linkages, lowest=thresholds)
def test_whatever_lies_outside_a_block_its_merges_are_those_of_the_whole(piece, linkage, lowest):
    whole, ids, part, ids_here, is_open = piece
    least = integer_threshold(lowest)
    here = merges_of(agglomerate(part, ids_here, least, linkage, is_open))
    assert set(here) <= set(merges_of(agglomerate(whole, ids, least, linkage)))


def test_an_input_of_open_nodes_is_left_as_it_is():
    graph = graph_of([(1, 2, {200: 1})])
    is_open = np.array([False, True, False])
    agglomerate(graph, np.arange(3, dtype=np.uint64), 0, Linkage(), is_open)
    assert is_open.tolist() == [False, True, False]


@BY_VALUE
def test_a_threshold_of_one_merges_nothing(name):
    graph = graph_of([(1, 2, {255: 1}), (2, 3, {5: 1})])
    ids = np.arange(4, dtype=np.uint64)
    assert merges_of(agglomerate(graph, ids, integer_threshold(1.0), Linkage(name))) == []


@BY_VALUE
def test_a_score_at_the_threshold_merges(name):
    graph = graph_of([(1, 2, {128: 3}), (2, 3, {127: 1})])
    found = agglomerate(graph, np.arange(4, dtype=np.uint64), integer_threshold(0.5), Linkage(name))
    assert merges_of(found) == [(2, 1, Fraction(1, 2))]


@BY_VALUE
def test_a_graph_without_edges_merges_nothing(name):
    result = agglomerate(graph_of([]), np.arange(4, dtype=np.uint64), 0, Linkage(name))
    assert result.merges.shape == (0, 2)
    assert not result.open.any()


@pytest.fixture(scope="module")
def real_graph(data_dir):
    """Region graph of a small crop of AC4, affinities of the published network."""
    import h5py
    import torch

    from emslice.models.checkpoint import load_checkpoint
    from emslice.ops.affinity import pair_affinity, quantise

    torch.set_num_threads(1)  # threads wait for each other on busy cores
    network = load_checkpoint(data_dir / "checkpoints" / "cad_AC34.ckpt").network
    with h5py.File(data_dir / "ac4_crop.h5") as file:
        raw = torch.from_numpy(file["raw"][:4, :128, :208]).float()[None] / 255
    with torch.inference_mode():
        sections = [*raw[0, :1], *raw[0]]
        pairs = network.affinity_embeddings(torch.stack(sections)[None])
        codes = [quantise(pair_affinity(before[0], here[0])) for before, here in pairs]
    return graph_of_volume(torch.stack(codes, 1).numpy())


@BY_VALUE
def test_real_fragments_merge_as_their_twin(real_graph, name):
    assert len(real_graph[0]) > 500
    assert_same_as_twin(*real_graph, Linkage(name), 0.3)


def test_floored_means_merge_as_exact_rationals_on_real_fragments(real_graph):
    graph, ids = real_graph
    floors, exact = (make_score(Linkage("mean"), exact=e) for e in (False, True))
    rows, lowest = rows_of(graph, ids), Fraction(3, 10)
    found = [merge[:2] for merge in greedy(rows, lowest, floors)[0]]
    assert len(found) > 100
    assert found == [merge[:2] for merge in greedy(rows, lowest, exact)[0]]
