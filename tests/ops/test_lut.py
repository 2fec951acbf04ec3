import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from emslice.ops.lut import Lut

ids = st.one_of(
    st.integers(1, 20), st.integers(2**63 - 3, 2**64 - 1), st.integers(2**53, 2**53 + 9)
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    table=st.dictionaries(ids, ids, max_size=9),
    shape=st.sampled_from([(2, 3, 5), (1, 1, 7), (0, 3, 5), (3, 1, 1)]),
    data=st.data(),
)
def test_equals_a_dictionary(table, shape, data):
    fragments = np.array(sorted(table), np.uint64)
    lut = Lut(fragments, np.array([table[k] for k in sorted(table)], np.uint64))
    pool = data.draw(st.lists(st.one_of(ids, st.sampled_from([0, *table])), min_size=1))
    labels = np.resize(np.array(pool, np.uint64), shape)
    found = lut.apply(labels)
    assert (found.shape, found.dtype) == (shape, np.uint64)
    assert found.ravel().tolist() == [table.get(k, k) for k in labels.ravel().tolist()]


def test_the_labels_are_left_as_they_are():
    labels = np.array([[[3, 0, 9]]], np.uint64)
    for table in ([], [3]):
        lut = Lut(np.array(table, np.uint64), np.array([1] * len(table), np.uint64))
        lut.apply(labels)[:] = 7
        assert labels.tolist() == [[[3, 0, 9]]]
