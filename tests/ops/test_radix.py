import numpy as np
import pytest

from emslice.ops.radix import stable_order


@pytest.mark.parametrize(("low", "high"), [(0, 64), (20, 64), (0, 24), (5, 6)])
def test_rows_are_in_the_order_of_their_bits_and_equal_ones_stay(low, high):
    number = np.random.default_rng(1).integers(0, 2**63, 3001).astype(np.uint64)
    number[::3] = number[0]
    bits = (number >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)
    expected = np.argsort(bits, kind="stable")
    np.testing.assert_array_equal(stable_order(number, low, high), expected)


def test_what_is_sorted_by_is_left_as_it_was():
    number = np.array([3, 1, 2], np.uint64)
    assert stable_order(number, 0, 2).tolist() == [1, 2, 0]
    assert number.tolist() == [3, 1, 2]


def test_nothing_has_no_order():
    assert stable_order(np.zeros(0, np.uint64), 0, 64).shape == (0,)
