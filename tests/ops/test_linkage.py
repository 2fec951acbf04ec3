from collections import Counter
from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import Phase, example, find, given, settings
from hypothesis import strategies as st
from reference.agglomeration import hash_of, splitmix64
from reference.strategies import graph_of, id_lists, linkages, multigraphs

from emslice.errors import ConfigError
from emslice.ops.linkage import (
    LINKAGES,
    SCALE,
    Linkage,
    base_rows,
    hash_pairs,
    histogram_rows,
    integer_threshold,
    mean_rows,
    tie_order,
)
from emslice.ops.merging import gather_runs, score_of, union_rows

words = st.integers(0, 2**64 - 1)
# A base pair: {code: number}. Many contacts: means closer than a floor, and sums near 2^63.
levels = st.sampled_from([0, 60, 61, 255])
numbers = st.sampled_from([1, 2, 3, 2**18, 2**18 + 1, 2**47, 2**50 + 1])
pairs = st.dictionaries(levels, numbers, min_size=1, max_size=3)
groups = st.lists(pairs, min_size=1, max_size=5)


def rows_of(base, linkage):
    """Rows of base pairs, one each."""
    return base_rows(graph_of([(k + 1, k + 2, codes) for k, codes in enumerate(base)]), linkage)


def fold(linkage, rows, first, others):
    """Union of rows into ``first``."""
    for other in others:
        union_rows(linkage.name == "mean", first, other, rows)


def statistics(linkage, rows, edge):
    """All a row knows: number, and the sum or the runs (code, number)."""
    number, total = rows.pair[edge].tolist()
    if linkage.name == "mean":
        return number, total
    _, codes, numbers = gather_runs(np.array([edge]), rows)
    return number, list(zip(codes.tolist(), numbers.tolist(), strict=True))


def score(linkage, rows, edge):
    return int(score_of(linkage.name == "mean", linkage.quantile, edge, rows))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.floats(0, 1))
@example(0.0)
@example(1.0)
@example(0.1)
@example(5e-324)
def test_a_threshold_is_exact(threshold):
    found = integer_threshold(threshold)
    assert found == ceil(Fraction(threshold) * SCALE)
    assert Fraction(found, SCALE) >= threshold > Fraction(found - 1, SCALE)


@pytest.mark.parametrize("threshold", [-0.1, 1.0000001, float("nan"), float("inf")])
def test_a_threshold_that_is_no_affinity_is_refused(threshold):
    with pytest.raises(ConfigError, match=r"agglomeration.threshold"):
        integer_threshold(threshold)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=9))
def test_the_hash_is_that_of_python_integers(values):
    u, v = (np.array(column, np.uint64) for column in zip(*values, strict=True))
    assert hash_pairs(u, v).tolist() == [hash_of(a, b) for a, b in values]


def test_the_hash_is_that_of_the_published_generator():
    # First output of splitmix64 seeded with 0 (Steele et al. 2014), then its finaliser again.
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert hash_of(0, 0) == splitmix64(0xE220A8397B1DCDAF)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(graph=multigraphs(), data=st.data())
def test_ties_follow_contacts_then_hash_then_ids(graph, data):
    n, rows = graph
    table, ids = graph_of(rows), data.draw(id_lists(n))
    named = ids[table.edges].tolist()
    keys = [
        (-c, hash_of(u, v), u, v) for c, (u, v) in zip(table.contacts.tolist(), named, strict=True)
    ]
    expected = [keys.index(key) for key in sorted(keys)]
    assert tie_order(ids[table.edges], table.contacts).tolist() == expected


def test_equal_hashes_fall_back_to_the_smaller_ids(monkeypatch):
    monkeypatch.setattr("emslice.ops.linkage.hash_pairs", lambda u, v: np.zeros(len(u), np.uint64))
    pairs = np.array([(2, 3), (1, 3), (1, 2), (3, 4)], np.uint64)
    assert tie_order(pairs, np.array([1, 1, 1, 2])).tolist() == [3, 2, 1, 0]


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 2**40, 2**62, 2**63 - 2, 2**63 - 1]), max_size=12), words)
def test_huge_contacts_leave_the_order_of_ties_as_it_is(contacts, seed):
    # So many contacts leave no room for a hash beside them in one integer.
    pairs = np.random.default_rng(seed).integers(0, 2**63, (len(contacts), 2)).astype(np.uint64)
    keys = [(-c, hash_of(u, v), u, v) for c, (u, v) in zip(contacts, pairs.tolist(), strict=True)]
    found = tie_order(pairs, np.array(contacts, np.int64)).tolist()
    assert [keys[e] for e in found] == sorted(keys)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(base=groups, linkage=linkages)
def test_a_score_is_its_definition(base, linkage):
    rows = rows_of(base, linkage)
    fold(linkage, rows, 0, range(1, len(base)))
    all_codes = sum(map(Counter, base), Counter())
    n = all_codes.total()
    if linkage.name == "mean":
        expected = (sum(code * m for code, m in all_codes.items()) << 16) // n
    else:
        counts = all_codes if linkage.needs_histograms else Counter(map(max, base))
        expected = code_at(counts, linkage.quantile * counts.total() // 100) << 16
    assert score(linkage, rows, 0) == expected


def code_at(counts, rank):
    """Code with ``rank`` others below it in order."""
    for code in sorted(counts):
        rank -= counts[code]
        if rank < 0:
            return code
    raise IndexError


@pytest.mark.parametrize("quantile", [0, 1, 50, 99])
def test_ranks_of_petavoxel_numbers_do_not_leave_their_integers(quantile):
    low, high = 2**59 + 7, 2**60 + 1
    numbers, codes = np.array([low, high]), np.array([3, 200], np.uint8)
    rows = histogram_rows(np.array([low + high]), np.array([0, 2]), codes, numbers)
    at_rank = 3 if quantile * (low + high) // 100 < low else 200
    assert score(Linkage("quantile_max", quantile), rows, 0) == at_rank << 16


@settings(max_examples=300, derandomize=True, deadline=None)
@given(number=st.integers(1, 2**63 - 1), total=st.integers(0, 2**63 - 1))
@example(number=2**39, total=255 * 2**39)  # total << 16 has 63 bits
@example(number=2**62 + 1, total=2**63 - 1)
@example(number=2**55 - 1, total=255 * (2**55 - 1))
@example(number=3, total=2**47)
@example(number=3, total=2**47 - 1)
def test_means_of_any_64_bit_sums_are_exact(number, total):
    if total > 255 * number:  # no mean of codes
        number, total = total, number
    rows = mean_rows(np.array([number]), np.array([total]))
    assert score(Linkage("mean"), rows, 0) == (total << 16) // number


def law_holds(linkage, one, two, ranks, kept=max, score=score):
    """Reducibility of two groups of base pairs; ``kept`` chooses the rank of a union."""
    rows = rows_of(one + two, linkage)
    second = len(one)
    fold(linkage, rows, 0, range(1, second))
    fold(linkage, rows, second, range(second + 1, len(one + two)))
    first_rank, second_rank = kept(ranks[:second]), kept(ranks[second : len(one + two)])
    keys = [
        (score(linkage, rows, 0), -first_rank),
        (score(linkage, rows, second), -second_rank),
    ]
    fold(linkage, rows, 0, [second])
    return (score(linkage, rows, 0), -kept([first_rank, second_rank])) <= max(keys)


ten_ranks = st.permutations(range(10))
by_value = pytest.mark.parametrize("name", LINKAGES)
percentages = st.sampled_from([0, 1, 25, 50, 75, 99])


@by_value
@settings(max_examples=300, derandomize=True, deadline=None)
@given(quantile=percentages, one=groups, two=groups, ranks=ten_ranks)
def test_a_union_is_never_above_the_better_of_its_parts(name, quantile, one, two, ranks):
    assert law_holds(Linkage(name, quantile), one, two, ranks)


def sum_of_codes(linkage, rows, edge):
    """A score that grows with contacts: no linkage."""
    _, known = statistics(linkage, rows, edge)
    return known if linkage.name == "mean" else sum(code * number for code, number in known)


@by_value
@pytest.mark.parametrize(
    "fault", [{"kept": min}, {"score": sum_of_codes}], ids=["the better rank is kept", "a sum"]
)
def test_a_linkage_that_breaks_the_law_is_found(name, fault):
    cases = st.tuples(percentages, groups, groups, ten_ranks)
    few = settings(
        max_examples=5000, derandomize=True, deadline=None, database=None,
        phases=[Phase.generate],  # any case will do, however large
    )  # fmt: skip

    def breaks(case):
        quantile, *rest = case
        return not law_holds(Linkage(name, quantile), *rest, **fault)

    assert breaks(find(cases, breaks, settings=few))


@pytest.mark.parametrize("quantile", [25, 50, 75])
@pytest.mark.parametrize("name", ["quantile_max", "quantile"])
def test_a_quantile_that_keeps_the_better_rank_breaks_the_law(name, quantile):
    linkage = Linkage(name, quantile)
    # One pair of code 0 and the best rank joins seven of code 255: the score stays at 255.
    one, two, ranks = [{255: 1}] * 7, [{0: 1}], [1, 2, 3, 4, 5, 6, 7, 0]
    assert law_holds(linkage, one, two, ranks)
    assert not law_holds(linkage, one, two, ranks, kept=min)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(linkage=linkages, base=st.lists(pairs, min_size=3, max_size=3))
def test_union_does_not_depend_on_order(linkage, base):
    def joined(steps):
        rows = rows_of(base, linkage)
        for winner, loser in steps:
            union_rows(linkage.name == "mean", winner, loser, rows)
        return statistics(linkage, rows, steps[-1][0])

    orders = [[(0, 1), (0, 2)], [(1, 2), (0, 1)], [(2, 1), (2, 0)], [(1, 0), (2, 1)]]
    assert len({str(joined(steps)) for steps in orders}) == 1


@settings(max_examples=100, derandomize=True, deadline=None)
@given(base=groups)
def test_a_union_holds_every_maximum_once(base):
    linkage = Linkage("quantile_max")
    rows = rows_of(base, linkage)
    fold(linkage, rows, 0, range(1, len(base)))
    number, runs = statistics(linkage, rows, 0)
    assert number == len(base)
    assert runs == sorted(Counter(map(max, base)).items())


@pytest.mark.parametrize("quantile", [-1, 100, 1000])
def test_a_quantile_without_a_rank_is_refused(quantile):
    with pytest.raises(ConfigError, match=rf"agglomeration.quantile: {quantile} "):
        Linkage("quantile_max", quantile)


def test_an_unknown_linkage_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'median'.*mean, quantile_max, quantile"):
        Linkage("median")
