"""Histograms add up, and tables do what their names say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emslice.ops.lookup import GreyLevel, affine_table, count_levels, level_of, match_table


def sections(seed, shape=(3, 37, 53)):
    """Grey values, each section brighter than the last, with some that were never imaged."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(90, 20, shape) + 15 * np.arange(shape[0])[:, None, None]
    raw = np.clip(raw, 1, 255).astype(np.uint8)
    raw[rng.random(shape) < 0.05] = 0
    return raw


def test_a_histogram_counts_each_value_but_raw_0():
    raw = sections(0)
    counts = count_levels(raw, raw, (37, 53))
    assert counts.shape == (3, 1, 1, 256)
    for z in range(3):
        expected = np.bincount(raw[z].ravel(), minlength=256)
        expected[0] = 0
        np.testing.assert_array_equal(counts[z, 0, 0], expected)


def test_what_a_window_makes_black_is_counted_and_what_was_not_imaged_is_not():
    raw = np.array([[[0, 7, 900]]], np.uint16)
    counts = count_levels(np.array([[[0, 0, 255]]], np.uint8), raw, (1, 3))
    assert (counts[0, 0, 0, 0], counts[0, 0, 0, 255], counts.sum()) == (1, 1, 2)


@settings(max_examples=30, deadline=None)
@given(cut=st.tuples(st.integers(1, 36), st.integers(1, 52)), cell=st.integers(1, 60))
def test_histograms_of_cells_do_not_depend_on_where_a_section_is_cut(cut, cell):
    raw = sections(1)
    whole = count_levels(raw, raw, (cell, cell))
    total = np.zeros_like(whole)
    for y in (slice(0, cut[0]), slice(cut[0], None)):
        for x in (slice(0, cut[1]), slice(cut[1], None)):
            part = raw[:, y, x]
            counts = count_levels(part, part, (cell, cell), (y.start, x.start))
            cy, cx = y.start // cell, x.start // cell
            total[:, cy : cy + counts.shape[1], cx : cx + counts.shape[2]] += counts
    np.testing.assert_array_equal(total, whole)


def test_mean_and_deviation_are_those_of_the_voxels():
    raw = sections(2)
    level = level_of(count_levels(raw, raw, (37, 53)).sum((0, 1, 2)))
    assert level.mean == pytest.approx(raw[raw > 0].mean())
    assert level.std == pytest.approx(raw[raw > 0].std())


def test_sums_of_a_petavoxel_do_not_overflow():
    counts = np.zeros(256, np.uint64)
    counts[[10, 250]] = 10**15
    assert level_of(counts) == GreyLevel(130, 120)
    assert affine_table(counts, GreyLevel(100, 60))[[10, 250]].tolist() == [40, 160]
    assert match_table(counts, counts[::-1])[[10, 250]].tolist() == [5, 245]


def test_an_affine_table_gives_the_mean_and_deviation_of_its_target():
    raw, target = sections(3), GreyLevel(140, 30)
    for section in raw:
        moved = affine_table(count_levels(section[None], section[None], (37, 53))[0, 0, 0], target)
        values = moved[section][section > 0]
        assert values.mean() == pytest.approx(140, abs=0.3)
        assert values.std() == pytest.approx(30, abs=0.3)
        assert (np.diff(moved.astype(int)) >= 0).all()


def test_values_that_are_all_equal_are_shifted_and_none_are_left_alone():
    counts = np.zeros(256, np.uint64)
    np.testing.assert_array_equal(affine_table(counts, GreyLevel(9, 9)), np.arange(256))
    counts[77] = 5
    assert affine_table(counts, GreyLevel(100, 30))[[76, 77, 78]].tolist() == [99, 100, 101]


def test_sections_matched_to_the_volume_have_its_histogram():
    raw = sections(4, (5, 90, 110))
    counts = count_levels(raw, raw, (90, 110))[:, 0, 0]
    volume = counts.sum(0)
    for section, histogram in zip(raw, counts, strict=True):
        table = match_table(histogram, volume)
        assert (np.diff(table.astype(int)) >= 0).all()
        matched = np.bincount(table[section][section > 0], minlength=256)
        shares = np.cumsum(matched) / matched.sum() - np.cumsum(volume) / volume.sum()
        assert np.abs(shares).max() <= histogram.max() / histogram.sum() / 2 + 1e-9


def test_a_histogram_matched_to_itself_is_left_alone():
    raw = sections(5)
    counts = count_levels(raw, raw, (37, 53)).sum((0, 1, 2))
    used = np.flatnonzero(counts)
    np.testing.assert_array_equal(match_table(counts, counts)[used], used)


@pytest.mark.parametrize("empty", ["ours", "theirs"])
def test_without_voxels_there_is_nothing_to_match(empty):
    some, none = np.full(256, 3, np.uint64), np.zeros(256, np.uint64)
    table = match_table(none, some) if empty == "ours" else match_table(some, none)
    np.testing.assert_array_equal(table, np.arange(256))
