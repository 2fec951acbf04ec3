import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.region_graph import as_dict, contacts_of
from reference.strategies import codes, graph_of, multigraphs

from emslice.ops.histograms import add_histograms
from emslice.ops.region_graph import combine, extract_edges


def labels_like(affinity, seed, n_labels):
    shape = affinity.shape[1:]
    return np.random.default_rng(seed).integers(0, n_labels + 1, shape).astype(np.int32)


def expected_rows(affinity, labels):
    contacts = contacts_of(affinity, labels)
    return {pair: (len(c), sum(c), max(c), sorted(c)) for pair, c in contacts.items()}


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(affinity=codes(), seed=seeds, n_labels=st.sampled_from([1, 2, 5, 40]))
def test_equals_one_contact_at_a_time(affinity, seed, n_labels):
    labels = labels_like(affinity, seed, n_labels)
    graph = extract_edges(affinity, labels, histograms=True)
    assert as_dict(graph) == expected_rows(affinity, labels)
    assert len(graph) == len(as_dict(graph))


@settings(max_examples=50, derandomize=True, deadline=None)
@given(affinity=codes(), seed=seeds, workers=st.integers(2, 6))
def test_threads_change_nothing(affinity, seed, workers):
    labels = labels_like(affinity, seed, 5)
    one, many = (extract_edges(affinity, labels, n, histograms=True) for n in (1, workers))
    assert as_dict(one) == as_dict(many)
    np.testing.assert_array_equal(one.edges, many.edges)


def test_a_table_that_grows_many_times_loses_nothing():
    random = np.random.default_rng(3)
    affinity = random.integers(0, 256, (3, 7, 31, 29), dtype=np.uint8)
    labels = random.permutation(7 * 31 * 29).reshape(7, 31, 29).astype(np.int32)
    graph = extract_edges(affinity, labels, histograms=True)
    assert as_dict(graph) == expected_rows(affinity, labels)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(affinity=codes(), seed=seeds)
def test_rows_are_sorted_by_pair_with_u_below_v(affinity, seed):
    edges = extract_edges(affinity, labels_like(affinity, seed, 9)).edges
    assert (edges[:, 0] < edges[:, 1]).all()
    assert edges.tolist() == sorted(edges.tolist())


def test_background_has_no_contacts():
    affinity = np.full((3, 2, 3, 5), 255, np.uint8)
    labels = np.zeros((2, 3, 5), np.int32)
    labels[0, 1, 2] = 1
    assert len(extract_edges(affinity, labels)) == 0


@settings(max_examples=100, derandomize=True, deadline=None)
@given(graph=multigraphs(), seed=seeds)
def test_where_a_row_is_counted_does_not_matter(graph, seed):
    _, rows = graph
    random = np.random.default_rng(seed)
    place = random.integers(0, 3, len(rows))
    parts = [graph_of([r for r, p in zip(rows, place, strict=True) if p == k]) for k in range(3)]
    a, b, c = (parts[k] for k in random.permutation(3))
    whole = as_dict(graph_of(rows))
    assert as_dict(combine([a, b, c])) == whole
    assert as_dict(combine([a, combine([b, c])])) == whole


@settings(max_examples=50, derandomize=True, deadline=None)
@given(graph=multigraphs())
def test_combine_adds_numbers_sums_and_histograms_and_takes_the_largest_maximum(graph):
    _, rows = graph
    codes = {}
    for u, v, own in rows:
        codes.setdefault((min(u, v), max(u, v)), []).extend(own.elements())
    expected = {pair: (len(c), sum(c), max(c), sorted(c)) for pair, c in codes.items()}
    assert as_dict(graph_of(rows)) == expected


@settings(max_examples=50, derandomize=True, deadline=None)
@given(affinity=codes(), seed=seeds)
def test_without_histograms_the_rest_is_the_same(affinity, seed):
    labels = labels_like(affinity, seed, 5)
    plain, counted = (extract_edges(affinity, labels, histograms=h) for h in (False, True))
    assert not len(plain.histograms.size)
    assert as_dict(plain) == {pair: (*row[:3], []) for pair, row in as_dict(counted).items()}


def test_numbers_of_a_histogram_are_as_wide_as_they_must_be():
    affinity, labels = np.full((3, 1, 2, 300), 7, np.uint8), np.ones((1, 2, 300), np.int32)
    labels[0, 1] = 2
    histograms = extract_edges(affinity, labels, histograms=True).histograms
    assert (histograms.number.tolist(), histograms.number.dtype) == ([300], np.uint16)
    twice = add_histograms([histograms] * 300, np.zeros(300, np.int64), 1)
    assert (twice.number.tolist(), twice.number.dtype) == ([90_000], np.uint32)
