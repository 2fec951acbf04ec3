import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emslice.errors import GeometryError
from emslice.geometry.boxes import Roi, clip
from emslice.geometry.windows import WindowAxis, WindowLattice

default = settings(max_examples=150, derandomize=True, deadline=None)


@st.composite
def window_axes(draw):
    margin = draw(st.integers(0, 7))
    output = draw(st.integers(1, 24))
    stride = draw(st.integers(1, output))
    return WindowAxis(draw(st.integers(1, 200)), output + 2 * margin, stride, margin)


@pytest.mark.parametrize(
    ("length", "crop", "stride", "margin", "n", "pad"),
    [
        (100, 18, 10, 0, 10, 4),
        (125, 18, 10, 0, 13, 6),
        (25, 18, 15, 0, 2, 4),
        (1024, 160, 80, 0, 13, 48),
        (1250, 160, 80, 0, 15, 15),
        (520, 160, 80, 0, 6, 20),
        (1024, 268, 56, 106, 19, 0),
        (100, 53, 25, 14, 4, 0),
    ],
)
def test_windows_are_as_many_and_padded_as_published(length, crop, stride, margin, n, pad):
    axis = WindowAxis(length, crop, stride, margin)
    assert (axis.n, axis.pad) == (n, pad)


@default
@given(window_axes())
def test_every_voxel_is_in_some_window_and_meeting_finds_all_of_them(axis):
    outputs = [range(axis.begin(j), axis.begin(j) + axis.output) for j in range(axis.n)]
    for voxel in {0, axis.length // 3, axis.length - 1}:
        holding = [j for j, output in enumerate(outputs) if voxel in output]
        assert holding
        assert list(axis.meeting(voxel, voxel + 1)) == holding


@default
@given(window_axes(), st.data())
def test_windows_of_a_range_are_those_that_hold_one_of_its_voxels(axis, data):
    low = data.draw(st.integers(0, axis.length - 1))
    high = data.draw(st.integers(low + 1, axis.length))
    each = {j for voxel in range(low, high) for j in axis.meeting(voxel, voxel + 1)}
    assert set(axis.meeting(low, high)) == each


@default
@given(window_axes())
def test_cells_cover_the_domain_once_in_order(axis):
    voxels = [voxel for low, high in axis.cells() for voxel in range(low, high)]
    assert voxels == list(range(axis.length))


@default
@given(window_axes())
def test_windows_see_the_domain_reflected_at_its_ends(axis):
    windows = range(axis.n)
    before = axis.pad + axis.margin
    seen = (axis.n - 1) * axis.stride + axis.crop
    line = np.pad(np.arange(axis.length), (before, max(0, seen - before - axis.length)), "reflect")
    assert axis.sources(windows).tolist() == line[:seen].tolist()
    last = axis.sources(range(axis.n - 1, axis.n))
    assert last.tolist() == line[(axis.n - 1) * axis.stride : seen].tolist()


def lattice(shape=(40, 190, 130)):
    return WindowLattice(shape, (6, 32, 40), (3, 16, 20))


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.data())
def test_cells_that_meet_a_box_are_those_that_own_a_part_of_it(data):
    windows = lattice()
    begin = [data.draw(st.integers(0, n - 1)) for n in windows.shape]
    shape = [
        data.draw(st.integers(1, n - low)) for n, low in zip(windows.shape, begin, strict=True)
    ]
    box = Roi(begin, shape)
    whole = Roi((0, 0, 0), windows.shape)
    cells = list(windows.meeting(whole))
    assert len(cells) > 2
    owners = [index for index in cells if not clip(windows.owned(index), box).empty]
    assert list(windows.meeting(box)) == owners
    assert sum(clip(windows.owned(i), box).size for i in owners) == box.size


def test_what_an_answer_shows_has_the_shape_of_its_windows():
    windows, answer = lattice(), Roi((5, 20, 0), (4, 30, 50))
    shown = windows.sources((0, 0, 0), answer)
    counts = [len(row) for row in windows.windows(answer)]
    sizes = [(n - 1) * s + c for n, s, c in zip(counts, (3, 16, 20), (6, 32, 40), strict=True)]
    assert [len(line) for line in shown] == sizes


@pytest.mark.parametrize("stride", [(7, 16, 20), (3, 33, 20), (3, 16, 0)])
def test_strides_that_leave_gaps_are_refused(stride):
    with pytest.raises(GeometryError, match=r"predict\.stride.*\(6, 32, 40\)"):
        WindowLattice((40, 90, 130), (6, 32, 40), stride)
