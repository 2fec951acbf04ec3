"""Fragments that a block makes alone: numbers, ids, and the two methods against slow twins."""

import sys

import numpy as np
import pytest
from scipy import ndimage

from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi
from emslice.ops.block_fragments import fragments_of_sections
from emslice.ops.flood import flood_section
from emslice.ops.mutex import mutex_section


def smooth_codes(shape, seed=0):
    noise = np.random.default_rng(seed).random((3, *shape))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 2.0, 2.0))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return (255 * smooth).astype(np.uint8)


def thirds(codes):
    """Three stripes, numbered from right to left."""
    return np.broadcast_to(3 - 3 * np.arange(codes.shape[2]) // codes.shape[2], codes.shape[1:])


def test_fragments_are_numbered_and_named_by_their_first_voxels():
    codes = np.ones((3, 2, 4, 9), np.uint8)
    block, domain = Roi((5, 10, 20), (2, 4, 9)), Roi((0, 0, 0), (9, 30, 40))
    made = fragments_of_sections(thirds, codes, block, domain)
    np.testing.assert_array_equal(made.labels[0, 0], [1, 1, 1, 2, 2, 2, 3, 3, 3])
    np.testing.assert_array_equal(made.labels[1, 3], [4, 4, 4, 5, 5, 5, 6, 6, 6])
    first = (5 * 30 + 10) * 40 + 20 + 1
    section = [first, first + 3, first + 6]
    np.testing.assert_array_equal(made.ids, [0, *section, *(i + 30 * 40 for i in section)])
    assert made.n_roots == 6
    assert len(made.exits) == 0


def test_a_voxel_without_affinities_belongs_to_no_fragment():
    codes = np.ones((3, 1, 4, 9), np.uint8)
    codes[:, 0, :, :4] = 0
    made = fragments_of_sections(thirds, codes)
    np.testing.assert_array_equal(made.labels[0, 2], [0, 0, 0, 0, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(made.ids, [0, 5, 7])


def test_threads_change_nothing():
    pytest.importorskip("mahotas")
    codes = smooth_codes((5, 31, 47))
    one, three = (fragments_of_sections(flood_section, codes, workers=n) for n in (1, 3))
    np.testing.assert_array_equal(one.labels, three.labels)
    np.testing.assert_array_equal(one.ids, three.ids)


def test_a_flood_has_one_connected_label_around_each_maximum_of_the_distance():
    pytest.importorskip("mahotas")
    codes = smooth_codes((1, 40, 57))[:, 0]
    labels = flood_section(codes)
    assert labels.min() == 1
    inside = codes[1].astype(int) + codes[2] > 255
    y, x = np.nonzero(~inside)
    gy, gx = np.mgrid[:40, :57]
    squared = ((gy[..., None] - y) ** 2 + (gx[..., None] - x) ** 2).min(-1)
    plateaus = 0
    for value in np.unique(squared):
        parts, n = ndimage.label(squared == value)
        for part in range(1, n + 1):
            ring = ndimage.binary_dilation(parts == part) & (parts != part)
            if squared[ring].max() < value:
                plateaus += 1
                assert len(np.unique(labels[parts == part])) == 1
    assert labels.max() == plateaus > 5
    for label in range(1, plateaus + 1):
        assert ndimage.label(labels == label)[1] == 1


@pytest.mark.parametrize("code", [1, 255])
def test_a_section_without_a_boundary_or_without_an_inside_is_one_flood(code):
    pytest.importorskip("mahotas")
    assert (flood_section(np.full((3, 6, 11), code, np.uint8)) == 1).all()


def test_a_mutex_watershed_parts_two_halves_by_a_membrane():
    pytest.importorskip("bioimage_cpp")
    codes = np.full((3, 30, 70), 240, np.uint8)
    codes[1:, :, 33:37] = 10
    labels = mutex_section(codes)
    assert labels.min() > 0
    assert len(np.unique(labels[:, :30])) == 1
    assert len(np.unique(labels[:, 40:])) == 1
    assert labels[0, 0] != labels[0, -1]


@pytest.mark.parametrize(
    ("method", "module"), [(flood_section, "mahotas"), (mutex_section, "bioimage_cpp")]
)
def test_a_missing_library_is_refused_with_the_command_that_installs_it(
    method, module, monkeypatch
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install emslice\[compare\]"):
        method(np.ones((3, 5, 7), np.uint8))
