import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.fragments import volume_fragment_ids
from reference.strategies import codes

from emslice.errors import GeometryError
from emslice.geometry.boxes import Roi
from emslice.ops import fragments_3d
from emslice.ops.fragments import make_fragments

PALETTES = [(0, 255), (127, 128), (0, 127, 128, 255), (0, 60, 128, 190, 255), tuple(range(256))]


def volumes(*palettes):
    shapes = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 9))
    return codes(shapes, st.sampled_from(palettes or PALETTES))


def make(affinity, *place, **more):
    return make_fragments(affinity, *place, dimensions=3, **more)


def ids_of(fragments):
    """Fragment id of every voxel."""
    return fragments.ids[fragments.labels]


@settings(max_examples=150, derandomize=True, deadline=None)
@given(affinity=volumes(), radius=st.integers(1, 5))
def test_equals_one_voxel_at_a_time(affinity, radius):
    found = ids_of(make(affinity, radius=radius))
    np.testing.assert_array_equal(found, volume_fragment_ids(affinity, radius=radius))


@settings(max_examples=60, derandomize=True, deadline=None)
@given(affinity=volumes((0, 200, 200, 200, 200, 255)), radius=st.integers(2, 4))
def test_wide_fragments_do_too(affinity, radius):
    affinity = np.repeat(affinity, 2, axis=1)
    found = ids_of(make(affinity, radius=radius))
    np.testing.assert_array_equal(found, volume_fragment_ids(affinity, radius=radius))


@settings(max_examples=40, derandomize=True, deadline=None)
@given(affinity=volumes(), begin=st.tuples(*[st.integers(0, 9)] * 3), rest=st.integers(0, 5))
def test_ids_are_linear_indices_of_the_domain(affinity, begin, rest):
    roi = Roi(begin, affinity.shape[1:])
    domain = tuple(int(n) + rest for n in roi.end)
    found = ids_of(make(affinity, roi, Roi((0, 0, 0), domain), radius=4))
    np.testing.assert_array_equal(found, volume_fragment_ids(affinity, begin, domain, radius=4))


@settings(max_examples=30, derandomize=True, deadline=None)
@given(affinity=volumes(), workers=st.integers(2, 5))
def test_threads_change_nothing(affinity, workers):
    one, many = make(affinity), make(affinity, workers=workers)
    np.testing.assert_array_equal(one.labels, many.labels)
    np.testing.assert_array_equal(one.ids, many.ids)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), radius=st.integers(1, 3), workers=st.integers(1, 2))
def test_a_block_with_its_halo_has_the_labels_of_the_whole_or_exits(seed, radius, workers):
    random = np.random.default_rng(seed)
    affinity = random.choice(np.array([0, 90, 200, 255], np.uint8), (3, 11, 13, 14))
    box, block = Roi((0, 0, 0), (11, 13, 14)), Roi((4, 3, 5), (3, 5, 4))
    read = block.grow((radius,) * 3, (radius,) * 3).intersect(box)
    inner = tuple(slice(int(b), int(e)) for b, e in zip(read.begin, read.end, strict=True))
    part = make(affinity[:, *inner], read, box, radius=radius, block=block, workers=workers)
    whole = ids_of(make(affinity, radius=radius))
    found = ids_of(part)
    # An exit is a voxel just outside; the whole knows its fragment.
    exits = {int(q): whole.reshape(-1)[int(q) - 1] for q in part.exits}
    assert len(exits) == len(part.exits)
    assert not any(block.contains(np.unravel_index(q - 1, whole.shape)) for q in exits)
    resolved = np.vectorize(lambda q: exits.get(int(q), q), otypes=[np.uint64])(found)
    np.testing.assert_array_equal(resolved, whole[4:7, 3:8, 5:9])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("radius", [2, 3, 5])
def test_a_margin_one_shorter_than_the_radius_is_not_enough(axis, radius):
    # The voxel at radius points on along the axis unless the hole at 2 * radius is seen.
    line = np.full((3, 2 * radius + 1), 200, np.uint8)
    line[:, 2 * radius] = 0
    shape = [1, 1, 1]
    shape[axis] = -1
    block = Roi([radius if k == axis else 0 for k in range(3)], (1, 1, 1))

    def exits(low, high):
        affinity = line[:, low:high].reshape(3, *shape)
        begin = [low if k == axis else 0 for k in range(3)]
        read, domain = Roi(begin, affinity.shape[1:]), Roi((0, 0, 0), (20, 20, 20))
        return len(make(affinity, read, domain, radius=radius, block=block).exits)

    assert exits(0, 2 * radius + 1) == 0
    assert exits(1, 2 * radius) == 1


def test_inside_is_above_one_half_of_the_three_affinities():
    affinity = np.array([127, 127, 128, 128, 127, 128], np.uint8).reshape(3, 2)
    affinity = np.ascontiguousarray(affinity[:, None, None, :])  # sums 382 and 383
    heights = fragments_3d.volume_heights(affinity, 3, (0, 1), (0, 1))
    assert heights.tolist() == [[[383, 384]]]


def test_the_highest_height_fits_its_integers():
    heights = fragments_3d.volume_heights(np.full((3, 1, 2, 3), 255, np.uint8), 255, (0, 1), (0, 2))
    assert (heights == 383 + 255**2).all()


def test_a_uniform_volume_is_one_fragment_of_its_last_voxel():
    assert make(np.full((3, 2, 3, 5), 200, np.uint8)).ids.tolist() == [0, 30]


def test_a_voxel_is_masked_only_without_any_affinity():
    affinity = np.zeros((3, 1, 2, 3), np.uint8)
    for k in range(3):
        affinity[k, 0, 1, k] = 1
    masked = make(affinity).labels[0] == 0
    assert masked.tolist() == [[True, True, True], [False, False, False]]


def test_masked_voxels_end_every_path():
    affinity = np.full((3, 5, 4, 6), 200, np.uint8)
    affinity[:, 2] = 0
    fragments = make(affinity)
    assert not fragments.labels[2].any()
    assert len(fragments.ids) == 3


def test_another_number_of_dimensions_is_refused():
    with pytest.raises(GeometryError, match=r"fragments.dimensions: 4 "):
        make_fragments(np.zeros((3, 1, 2, 3), np.uint8), dimensions=4)


def test_a_block_with_more_voxels_than_labels_is_refused():
    affinity = np.broadcast_to(np.uint8(0), (3, 2**11, 2**10, 2**10))
    labels = np.broadcast_to(np.int32(0), affinity.shape[1:])
    core = tuple(slice(0, n) for n in labels.shape)
    with pytest.raises(GeometryError, match="2147483648 voxels"):
        fragments_3d.label_box(affinity, 4, core, labels)
