from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emslice.errors import GeometryError
from emslice.geometry.lattice import HALO, STEP, Axis, TileLattice

default = settings(max_examples=200, derandomize=True, deadline=None)
cores = st.integers(1, 80).map(lambda n: 16 * n)
axes = st.builds(Axis, length=st.integers(1, 3000), core=cores)
lattices = st.builds(
    TileLattice, shape=st.tuples(st.integers(1, 700), st.integers(1, 700)), core=cores
)


@default
@given(axes)
def test_padding_is_the_least_that_gives_a_multiple_of_16_and_is_even(axis):
    missing = axis.padded - axis.length
    assert axis.padded % 16 == 0
    assert 0 <= missing < 16
    assert 0 <= missing - 2 * axis.pad <= 1


def test_a_section_of_1250_is_padded_to_1264_with_7_before():
    assert (Axis(1250, 1024).padded, Axis(1250, 1024).pad) == (1264, 7)


@default
@given(axes)
def test_cores_cover_the_padded_axis_once_in_order(axis):
    cores = [span.core for span in axis.spans()]
    assert (cores[0][0], cores[-1][1]) == (0, axis.padded)
    assert all(before[1] == after[0] for before, after in pairwise(cores))
    assert all(lo < hi for lo, hi in cores)


@default
@given(axes)
def test_cores_are_multiples_of_16_nearly_equal_and_never_longer_than_asked(axis):
    lengths = [hi - lo for lo, hi in (span.core for span in axis.spans())]
    assert all(n % STEP == 0 for n in lengths)
    assert max(lengths) <= axis.core
    assert max(lengths) - min(lengths) <= STEP


@default
@given(axes)
def test_there_are_no_more_cores_than_needed(axis):
    assert len(axis.spans()) == -(-axis.padded // axis.core)


@default
@given(axes)
def test_a_read_box_is_the_core_and_its_halo_clipped_at_the_section(axis):
    for span in axis.spans():
        (lo, hi), (first, last) = span.core, span.read
        assert first == lo - HALO or (first == 0 and lo < HALO)
        assert last == hi + HALO or (last == axis.padded and hi + HALO > axis.padded)
        assert first % STEP == last % STEP == 0


@default
@given(axes)
def test_answers_cover_the_section_once_without_its_padding(axis):
    answers = [axis.answer(span) for span in axis.spans()]
    assert [k for lo, hi in answers for k in range(lo, hi)] == list(range(axis.length))


@default
@given(axes)
def test_an_answer_is_where_the_core_lies_in_the_padded_section(axis):
    for span in axis.spans():
        core = range(span.core[0] - axis.pad, span.core[1] - axis.pad)
        assert list(range(*axis.answer(span))) == [k for k in core if 0 <= k < axis.length]


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.builds(Axis, length=st.integers(9, 600), core=cores))
def test_the_sources_of_a_read_box_are_those_of_the_reflected_section(axis):
    after = axis.padded - axis.length - axis.pad
    line = list(range(axis.length))
    padded = line[1 : axis.pad + 1][::-1] + line + line[-2 : -2 - after : -1]
    for span in axis.spans():
        assert axis.sources(span).tolist() == padded[slice(*span.read)]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(lattices)
def test_tiles_cover_the_padded_section_once(lattice):
    seen = np.zeros([axis.padded // STEP for axis in lattice.axes], int)
    for tile in lattice.tiles():
        y, x = (slice(s.core[0] // STEP, s.core[1] // STEP) for s in (tile.y, tile.x))
        seen[y, x] += 1
    assert (seen == 1).all()


def test_tiles_come_row_by_row():
    found = [(t.y.core, t.x.core) for t in TileLattice((20, 40), core=16).tiles()]
    rows, columns = [(0, 16), (16, 32)], [(0, 16), (16, 32), (32, 48)]
    assert found == [(y, x) for y in rows for x in columns]


@pytest.mark.parametrize("core", [0, -16, 8, 100, 1000])
def test_a_core_that_is_no_multiple_of_16_is_refused(core):
    with pytest.raises(GeometryError, match=rf"predict.tile: {core} is not a positive multiple"):
        TileLattice((300, 200), core)
