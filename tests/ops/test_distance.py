import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.fragments import squared_distance

from emslice.ops.distance import NARROW, capped_distance

SHAPES = [(1, 1), (1, 17), (13, 1), (7, 11), (12, 5), (2, 9)]


def distance(inside, radius):
    out = np.full(inside.shape, 7777, np.uint16)
    capped_distance(inside, radius, out)
    return out


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    radius=st.integers(1, 9),
    density=st.sampled_from([0, 0.5, 0.9, 0.98, 1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_brute_force(shape, radius, density, seed):
    inside = np.random.default_rng(seed).random(shape) < density
    np.testing.assert_array_equal(distance(inside, radius), squared_distance(inside, radius))


@pytest.mark.parametrize("radius", [NARROW, NARROW + 1, 255])
def test_the_largest_radius_does_not_leave_its_integers(radius):
    inside = np.ones((2, 300), bool)
    inside[0, 0] = False
    expected = np.minimum(np.arange(300) ** 2 + np.array([[0], [1]]), radius**2)
    np.testing.assert_array_equal(distance(inside, radius), expected)


def test_segments_of_a_row_see_each_other():
    inside = np.random.default_rng(2).random((3, 290)) < 0.995
    np.testing.assert_array_equal(distance(inside, 64), squared_distance(inside, 64))


def test_beyond_the_array_is_inside():
    assert (distance(np.ones((3, 5), bool), 4) == 16).all()


def test_nothing_inside_is_zero_everywhere():
    assert not distance(np.zeros((3, 5), bool), 4).any()
