"""Small segments join large ones in one pass, as the slow twin does one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.dust import without_dust
from reference.strategies import codes

from emslice.errors import ConfigError
from emslice.ops.contacts import contacts_of
from emslice.ops.dust import DustRule, Sizes, add_up, join_sizes, segment_rows, settle
from emslice.ops.lut import Lut
from emslice.ops.region_graph import extract_edges

NONE = np.zeros(0, np.uint64)
IDS = np.array([0, 3, 4, 9, 20, 2**40, 2**63], np.uint64)


def settled(affinity, labels, rule, lut=None, touching=NONE):
    """What is settled of a volume whose dense labels have ``IDS``."""
    lut = lut or Lut(NONE, NONE)
    rows = segment_rows(contacts_of(extract_edges(affinity, labels), IDS), lut)
    sizes = add_up(lut.apply(IDS), np.bincount(labels.ravel(), minlength=len(IDS)))
    present = sizes.voxels > 0
    return settle(rows, Sizes(sizes.names[present], sizes.voxels[present]), touching, rule)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    affinity=codes(),
    seed=st.integers(0, 2**32 - 1),
    min_size=st.sampled_from([0, 1, 2, 4, 9, 30]),
    alone=st.sampled_from(["drop", "keep"]),
)
def test_equals_one_small_segment_at_a_time(affinity, seed, min_size, alone):
    random = np.random.default_rng(seed)
    labels = random.choice(7, affinity.shape[1:], p=random.dirichlet(np.ones(7))).astype(np.int32)
    merged = Lut(IDS[[3, 6]], IDS[[1, 2]])  # two cuts of a merge tree
    found = settled(affinity, labels, DustRule(min_size, alone), merged)
    segments = merged.apply(IDS)[labels]
    expected = without_dust(affinity, segments, min_size, alone)
    np.testing.assert_array_equal(found.targets.apply(segments), expected)
    gone = np.setdiff1d(segments, expected)
    assert found.joined + found.dropped == len(gone[gone != 0])
    assert not len(found.rows)
    assert not len(found.sizes.names)


def row(labels):
    """A volume of one row, and codes of 128 along it."""
    volume = np.array(labels, np.int32)[None, None]
    return np.full((3, *volume.shape), 128, np.uint8), volume


def becomes(labels, rule):
    affinity, volume = row(labels)
    return settled(affinity, volume, rule).targets.apply(IDS)[volume].ravel().tolist()


def test_there_are_no_chains():
    # 4 touches 3, which is large; 9 touches 4 only and is left alone.
    assert becomes([1, 1, 1, 2, 3], DustRule(3, "keep")) == [3, 3, 3, 3, 9]
    assert becomes([1, 1, 1, 2, 3], DustRule(3, "drop")) == [3, 3, 3, 3, 0]


def test_equal_sums_go_to_more_contacts_and_then_to_the_smaller_id():
    affinity = np.zeros((3, 2, 1, 6), np.uint8)
    labels = np.array([[[2, 2, 3, 1, 1, 1]], [[2, 2, 3, 1, 1, 1]]], np.int32)
    affinity[2, :, 0, 2], affinity[2, :, 0, 3] = (60, 40), (100, 0)
    assert settled(affinity, labels, DustRule(3)).targets.segments.tolist() == [3]
    affinity[2, 1, 0, 2] += 1
    assert settled(affinity, labels, DustRule(3)).targets.segments.tolist() == [4]
    labels[1, 0, 3:] = 0  # one contact of the same sum
    affinity[2, :, 0, 2], affinity[2, 0, 0, 3] = (60, 40), 100
    assert settled(affinity, labels, DustRule(3)).targets.segments.tolist() == [4]
    assert settled(affinity, labels, DustRule(0)).targets.segments.tolist() == []


def test_a_small_segment_waits_for_a_neighbour_that_may_be_large():
    affinity, labels = row([1, 1, 1, 2, 3])
    found = settled(affinity, labels, DustRule(3), touching=IDS[[3]])
    assert found.targets.segments.tolist() == []
    assert found.rows.pairs.tolist() == [[3, 4], [4, 9]]
    assert found.sizes.names.tolist() == [3, 4, 9]
    assert found.sizes.voxels.tolist() == [3, 1, 1]


def test_a_segment_that_is_large_in_part_is_large():
    affinity, labels = row([1, 1, 1, 2, 3, 3, 3])
    found = settled(affinity, labels, DustRule(3), touching=IDS[[1, 3]])
    assert found.targets.fragments.tolist() == [4]
    assert found.targets.segments.tolist() == [3]
    assert (found.joined, found.dropped) == (1, 0)
    assert not len(found.rows)
    assert found.sizes.names.tolist() == [3, 9]


def test_sizes_of_parts_add():
    parts = [add_up(IDS[[0, 1, 3, 1]], np.array([7, 2, 3, 4])), add_up(IDS[[3]], np.array([1]))]
    joined = join_sizes(parts)
    assert joined.names.tolist() == [3, 9]
    assert joined.voxels.tolist() == [6, 4]


@pytest.mark.parametrize(
    ("rule", "words"), [((-1,), "dust.min_size: -1"), ((5, "hide"), "dust.alone: 'hide'")]
)
def test_a_rule_that_makes_no_sense_is_refused(rule, words):
    with pytest.raises(ConfigError, match=words):
        DustRule(*rule)
