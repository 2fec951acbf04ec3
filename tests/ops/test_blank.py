import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.blank import blank_by_squares

from emslice.ops.blank import BLANK_SIDE, blank_voxels

SIDE = BLANK_SIDE


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    shape=st.sampled_from(
        [(2, 37, 23), (1, 16, 41), (1, 3, 29), (2, 1, 1), (1, 31, 5), (1, 17, 17)]
    ),
    n_spots=st.integers(0, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_union_of_all_zero_squares(shape, n_spots, seed):
    random = np.random.default_rng(seed)
    raw = np.zeros(shape, np.uint8)
    for z in range(shape[0]):
        raw[z].flat[random.integers(0, raw[z].size, n_spots)] = 9
    np.testing.assert_array_equal(blank_voxels(raw), blank_by_squares(raw, SIDE))


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (3, 0), (5, 7)])
def test_a_square_of_the_side_is_blank_and_nothing_around_it(corner):
    y, x = corner
    raw = np.full((2, SIDE + 9, SIDE + 12), 100, np.uint8)
    raw[1, y : y + SIDE, x : x + SIDE] = 0
    np.testing.assert_array_equal(blank_voxels(raw), raw == 0)


@pytest.mark.parametrize("shape", [(SIDE - 1, SIDE + 5), (SIDE, SIDE - 1), (1, 1)])
def test_a_smaller_rectangle_of_zeros_is_not_blank(shape):
    raw = np.full((1, SIDE + 9, SIDE + 12), 100, np.uint8)
    raw[0, 2 : 2 + shape[0], 3 : 3 + shape[1]] = 0
    assert not blank_voxels(raw).any()


def test_a_square_cut_by_the_border_is_not_blank():
    raw = np.full((1, SIDE + 9, SIDE + 12), 100, np.uint8)
    raw[0, : SIDE - 1, : SIDE + 5] = 0
    assert not blank_voxels(raw).any()


def test_a_volume_narrower_than_the_square_uses_its_width():
    raw = np.zeros((1, 3, SIDE + 5), np.uint8)
    raw[0, 1, SIDE] = 1
    expected = np.arange(SIDE + 5) < SIDE
    np.testing.assert_array_equal(blank_voxels(raw)[0], np.tile(expected, (3, 1)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_only_zero_is_blank(dtype):
    raw = np.zeros((3, SIDE + 1, SIDE + 2), dtype)
    raw[1] = 1
    assert blank_voxels(raw).all(axis=(1, 2)).tolist() == [True, False, True]
    assert not blank_voxels(raw)[1].any()


def test_raw_is_left_as_it_is():
    raw = np.zeros((1, SIDE + 1, SIDE + 2), np.uint8)
    raw[0, 0, 0] = 3
    before = raw.copy()
    blank_voxels(raw)
    np.testing.assert_array_equal(raw, before)
