import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.fragments import fragment_ids
from reference.strategies import codes

from emslice.errors import GeometryError
from emslice.geometry.boxes import Roi
from emslice.ops.fragments import make_fragments, section_heights
from emslice.ops.rainfall import point_uphill


def ids_of(fragments):
    """Fragment id of every voxel."""
    return fragments.ids[fragments.labels]


def roots_uphill(along_y, along_x, radius):
    """Pointer of every voxel of a section, as (y, x) relative to the voxel itself."""
    height = section_heights(along_y, along_x, radius)
    target = np.empty(height.shape, np.int32)
    point_uphill(height, target)
    places = np.stack(np.unravel_index(target, target.shape))
    return places - np.indices(target.shape)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(affinity=codes(), radius=st.integers(1, 5))
def test_equals_one_voxel_at_a_time(affinity, radius):
    found = ids_of(make_fragments(affinity, radius=radius))
    np.testing.assert_array_equal(found, fragment_ids(affinity, radius=radius))


@settings(max_examples=50, derandomize=True, deadline=None)
@given(affinity=codes(), begin=st.tuples(*[st.integers(0, 9)] * 3), rest=st.integers(0, 5))
def test_ids_are_linear_indices_of_the_domain(affinity, begin, rest):
    roi = Roi(begin, affinity.shape[1:])
    domain = tuple(int(n) + rest for n in roi.end)
    found = ids_of(make_fragments(affinity, roi, Roi((0, 0, 0), domain)))
    np.testing.assert_array_equal(found, fragment_ids(affinity, begin, domain))


def test_ids_beyond_32_bits_are_exact():
    affinity = np.full((3, 1, 2, 3), 255, np.uint8)
    domain = Roi((0, 0, 0), (2**20, 2**21, 2**22))
    roi = Roi((2**20 - 1, 2**21 - 2, 2**22 - 3), (1, 2, 3))
    assert make_fragments(affinity, roi, domain).ids.tolist() == [0, 2**63]


@settings(max_examples=30, derandomize=True, deadline=None)
@given(affinity=codes(), workers=st.integers(2, 5))
def test_threads_change_nothing(affinity, workers):
    one, many = make_fragments(affinity), make_fragments(affinity, workers=workers)
    np.testing.assert_array_equal(one.labels, many.labels)
    np.testing.assert_array_equal(one.ids, many.ids)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(affinity=codes())
def test_numbers_are_dense_and_ascend_with_the_ids(affinity):
    fragments = make_fragments(affinity)
    assert np.unique(np.append(fragments.labels, 0)).tolist() == list(range(len(fragments.ids)))
    assert (np.diff(fragments.ids.astype(object)) > 0).all()
    assert fragments.ids[0] == 0


def test_a_voxel_is_masked_only_without_any_affinity():
    affinity = np.zeros((3, 1, 2, 3), np.uint8)
    for k in range(3):
        affinity[k, 0, 1, k] = 1
    masked = make_fragments(affinity).labels[0] == 0
    assert masked.tolist() == [[True, True, True], [False, False, False]]


def test_a_uniform_section_is_one_fragment_of_its_last_voxel():
    fragments = make_fragments(np.full((3, 2, 3, 5), 200, np.uint8))
    assert fragments.ids.tolist() == [0, 15, 30]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), radius=st.integers(1, 4), level=st.sampled_from([0.7, 0.97]))
def test_a_margin_of_the_radius_is_enough_for_every_pointer(seed, radius, level):
    random = np.random.default_rng(seed)
    section = np.where(random.random((2, 17, 23)) < level, 200, 20).astype(np.uint8)
    whole = roots_uphill(*section, radius)
    low, high = np.array([6, 7]), np.array([9, 13])  # the window, then grown by the margin
    grown = tuple(slice(a - radius, b + radius) for a, b in zip(low, high, strict=True))
    window = roots_uphill(*section[:, grown[0], grown[1]], radius)
    inner = tuple(slice(radius, radius + b - a) for a, b in zip(low, high, strict=True))
    expected = whole[:, low[0] : high[0], low[1] : high[1]]
    np.testing.assert_array_equal(window[:, inner[0], inner[1]], expected)


@pytest.mark.parametrize("radius", [2, 3, 5])
def test_a_margin_one_shorter_than_the_radius_is_not(radius):
    # The voxel at x = radius points to its right unless the hole at 2 * radius is seen.
    section = np.full((2, 1, 2 * radius + 1), 200, np.uint8)
    section[:, 0, 2 * radius] = 0
    whole = roots_uphill(*section, radius)[1, 0, radius]
    short = roots_uphill(*section[:, :, 1 : 2 * radius], radius)[1, 0, radius - 1]
    assert (whole, short) == (0, 1)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), radius=st.integers(1, 5))
def test_heights_need_one_voxel_less_than_the_radius(seed, radius):
    random = np.random.default_rng(seed)
    section = np.where(random.random((2, 13, 16)) < 0.95, 200, 20).astype(np.uint8)
    margin = radius - 1
    cut = section[:, 6 - margin : 7 + margin, 8 - margin : 9 + margin]
    found = section_heights(*cut, radius)[margin, margin]
    assert found == section_heights(*section, radius)[6, 8]


@pytest.mark.parametrize("radius", [0, 256])
def test_a_radius_without_meaning_is_refused(radius):
    with pytest.raises(GeometryError, match=rf"fragments.radius: {radius} "):
        make_fragments(np.zeros((3, 1, 2, 3), np.uint8), radius=radius)


def test_a_box_of_another_shape_is_refused():
    with pytest.raises(GeometryError, match=r"\(1, 2, 3\).*\(1, 3, 2\)"):
        make_fragments(np.zeros((3, 1, 2, 3), np.uint8), Roi((0, 0, 0), (1, 3, 2)))
