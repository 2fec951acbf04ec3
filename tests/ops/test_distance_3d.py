import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.fragments import squared_distance

from emslice.ops.distance_3d import distance_along_z, distance_in_section

SHAPES = [(1, 1, 1), (1, 1, 17), (1, 13, 1), (11, 1, 1), (3, 7, 11), (9, 5, 2), (4, 2, 9)]


def distance(inside, radius, sections=None, rows=None):
    """Squared distances of some sections; rows that are not finished are 7777."""
    first, last = sections or (0, len(inside))
    rows = rows or (0, inside.shape[1])
    out = np.full((last - first, *inside.shape[1:]), 7777, np.uint16)
    distance_along_z(inside, radius, first, (0, inside.shape[1]), out)
    for section in out:
        distance_in_section(section, radius, rows)
    return out


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    radius=st.integers(1, 9),
    density=st.sampled_from([0, 0.5, 0.9, 0.98, 1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_brute_force(shape, radius, density, seed):
    inside = np.random.default_rng(seed).random(shape) < density
    np.testing.assert_array_equal(distance(inside, radius), squared_distance(inside, radius))


@settings(max_examples=40, derandomize=True, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), first=st.integers(0, 4), low=st.integers(0, 5))
def test_a_part_is_the_part_of_the_whole(seed, first, low):
    inside = np.random.default_rng(seed).random((7, 8, 5)) < 0.95
    part = distance(inside, 4, (first, first + 3), (low, low + 2))[:, low : low + 2]
    whole = squared_distance(inside, 4)
    np.testing.assert_array_equal(part, whole[first : first + 3, low : low + 2])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_largest_radius_does_not_leave_its_integers(axis):
    shape = [2, 2, 2]
    shape[axis] = 300
    inside = np.ones(shape, bool)
    inside[0, 0, 0] = False
    expected = np.minimum((np.indices(shape) ** 2).sum(axis=0), 255**2)
    np.testing.assert_array_equal(distance(inside, 255), expected)


def test_long_lines_keep_their_integers():
    inside = np.ones((1, 1, 70_000), bool)
    inside[0, 0, [0, 69_990]] = False
    found = distance(inside, 20)[0, 0]
    assert found[[3, 69_000, 69_987, 69_999]].tolist() == [9, 400, 9, 81]
