import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emslice.errors import GeometryError
from emslice.geometry.boxes import Roi, clip, cut, parse_roi, parse_triple, show, within

default = settings(max_examples=150, derandomize=True, deadline=None)
small = st.integers(0, 20)


@st.composite
def boxes(draw, low=0, empty=False):
    """A box near the origin with sides that differ."""
    begin = draw(st.tuples(*[st.integers(low, 15)] * 3))
    shape = draw(st.tuples(*[st.integers(0 if empty else 1, 11)] * 3))
    return Roi(begin, shape)


def voxels(roi):
    """Set of the voxels of a box."""
    return {tuple(p) for p in np.argwhere(np.ones(roi.shape, bool)) + np.array(roi.begin)}


@default
@given(st.tuples(*[st.integers(-999, 999)] * 3))
def test_a_triple_is_read_from_text_and_from_sequences(values):
    for given_as in (",".join(map(str, values)), " , ".join(map(str, values)), values, [*values]):
        assert parse_triple(given_as, "--halo") == values


def test_a_triple_of_floats_is_read():
    assert parse_triple("40,4.5,8", "--resolution", float) == (40.0, 4.5, 8.0)


@pytest.mark.parametrize(
    "text", ["", "1,2", "1,2,3,4", "a,2,3", "1,,3", "1.5,2,3", [1, 2], [None] * 3]
)
def test_what_is_no_triple_is_refused_with_its_name(text):
    with pytest.raises(GeometryError, match=rf"^--halo: .*{re.escape(repr(text))}"):
        parse_triple(text, "--halo")


@pytest.mark.parametrize("value", [64, None, 2.5, [float("inf"), 1, 2], [float("nan"), 1, 2]])
def test_a_value_of_another_kind_is_refused_with_its_name(value):
    with pytest.raises(GeometryError, match=r"^--halo: "):
        parse_triple(value, "--halo")


def test_whole_numbers_are_not_made_of_fractions():
    with pytest.raises(GeometryError, match=r"^--halo: .*1\.5"):
        parse_triple([1.5, 2, 3], "--halo")


@default
@given(inner=boxes(), rest=st.tuples(small, small, small))
def test_a_shown_box_reads_back(inner, rest):
    domain = Roi((0, 0, 0), [int(e) + r for e, r in zip(inner.end, rest, strict=True)])
    assert parse_roi(show(inner), domain) == inner


@default
@given(domain=boxes(), keep=st.lists(st.booleans(), min_size=6, max_size=6))
def test_an_empty_end_is_that_of_the_domain(domain, keep):
    ends = [str(n) for pair in zip(domain.begin, domain.end, strict=True) for n in pair]
    lo_hi = [end if kept else "" for end, kept in zip(ends, keep, strict=True)]
    text = ",".join(f"{lo_hi[i]}:{lo_hi[i + 1]}" for i in (0, 2, 4))
    assert parse_roi(text, domain) == domain


@pytest.mark.parametrize(
    "text", ["", "0:4", "0:4,0:4", "0:4,0:4,0:4,0:4", "0:4,4,0:4", "0:1:2,:,:"]
)
def test_what_is_no_three_ranges_is_refused(text):
    with pytest.raises(GeometryError, match=rf"^--box: expected z0:z1.*{re.escape(repr(text))}"):
        parse_roi(text, Roi((0, 0, 0), (9, 16, 32)), "--box")


@pytest.mark.parametrize("text", ["a:4,:,:", "0:4,0:1.5,:", "0:4,:,0:x"])
def test_ends_that_are_no_whole_numbers_are_refused(text):
    with pytest.raises(GeometryError, match="whole numbers"):
        parse_roi(text, Roi((0, 0, 0), (9, 16, 32)))


@pytest.mark.parametrize("text", ["4:4,:,:", "5:4,:,:", ":,16:,:", ":,:,:0"])
def test_an_empty_box_is_refused(text):
    with pytest.raises(GeometryError, match="is empty"):
        parse_roi(text, Roi((0, 0, 0), (9, 16, 32)))


@pytest.mark.parametrize("text", ["0:10,:,:", ":,-1:4,:", ":,:,30:33", "90:91,:,:"])
def test_a_box_that_leaves_the_domain_is_refused_with_the_domain(text):
    with pytest.raises(GeometryError, match="0:9,0:16,0:32"):
        parse_roi(text, Roi((0, 0, 0), (9, 16, 32)))


@default
@given(roi=boxes(low=-9, empty=True), bounds=boxes())
def test_clip_is_the_intersection(roi, bounds):
    assert voxels(clip(roi, bounds)) == voxels(roi) & voxels(bounds)


@default
@given(roi=boxes(low=-9), axis=st.integers(0, 2), step=st.integers(1, 9))
def test_slabs_cover_a_box_once_in_order_on_the_grid(roi, axis, step):
    slabs = cut(roi, axis, step)
    assert sum(slab.size for slab in slabs) == roi.size
    assert set.union(*map(voxels, slabs)) == voxels(roi)
    assert [s.begin for s in slabs] == sorted(s.begin for s in slabs)
    for slab in slabs:
        begin, end = int(slab.begin[axis]), int(slab.end[axis])
        assert begin // step == (end - 1) // step  # in one cell of the grid
    assert len({int(s.begin[axis]) // step for s in slabs}) == len(slabs)


@default
@given(outer=boxes(), data=st.data())
def test_within_finds_a_box_in_the_array_of_another(outer, data):
    low = [data.draw(st.integers(0, int(n) - 1)) for n in outer.shape]
    shape = [data.draw(st.integers(1, int(n) - k)) for n, k in zip(outer.shape, low, strict=True)]
    inner = Roi([int(b) + k for b, k in zip(outer.begin, low, strict=True)], shape)
    places = np.moveaxis(np.indices(outer.shape), 0, -1) + np.array(outer.begin)
    found = places[within(inner, outer)]
    assert found.shape[:3] == tuple(shape)
    assert {tuple(p) for p in found.reshape(-1, 3)} == voxels(inner)


@pytest.mark.parametrize("begin", [(0, 2, 3), (1, 2, 7), (1, 6, 3)])
def test_a_box_that_is_not_within_is_refused_with_both(begin):
    inner, outer = Roi(begin, (2, 3, 4)), Roi((1, 2, 3), (4, 5, 6))
    with pytest.raises(GeometryError, match=f"{show(inner)} is not inside {show(outer)}"):
        within(inner, outer)
