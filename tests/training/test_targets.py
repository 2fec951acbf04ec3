"""Targets against the equations, and what they must never do."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import training as twin

from emslice.geometry.neighborhood import NEIGHBORHOODS
from emslice.training.targets import pair_targets, shifted, volume_targets, widen_border

LABELS = hnp.arrays(np.int64, (2, 4, 5), elements=st.integers(0, 3))
VALID = hnp.arrays(np.bool_, (2, 4, 5), elements=st.sampled_from([True, True, True, False]))


@given(hnp.arrays(np.int64, (2, 6, 7), elements=st.sampled_from([0, 0, 1, 2, 5000])))
def test_borders_are_widened_as_the_3_by_3_window_says(labels):
    found = widen_border(torch.from_numpy(labels))
    np.testing.assert_array_equal(found, twin.widened(labels))


def test_a_straight_border_becomes_two_voxels_wide():
    labels = torch.tensor([[[1, 1, 1, 2, 2, 2, 2]] * 3])
    assert widen_border(labels)[0, 0].tolist() == [1, 1, 0, 0, 2, 2, 2]


@given(
    LABELS, VALID, st.sampled_from([(-1, 0, 0), (0, -1, 0), (0, -1, -3), (-1, 1, 1), (-4, 0, 0)])
)
def test_a_link_is_compared_with_the_voxel_at_its_offset(labels, valid, offset):
    found = volume_targets(*(torch.from_numpy(a)[None] for a in (labels, valid)), [offset])
    affinity, usable = twin.targets(labels, valid, offset)
    np.testing.assert_array_equal(found.affinity[0, 0], affinity)
    np.testing.assert_array_equal(found.usable[0, 0], usable)
    np.testing.assert_allclose(found.weights[0, 0], twin.weights(affinity, usable), rtol=1e-5)


@given(LABELS, VALID)
def test_pairs_have_the_targets_of_a_volume_of_two_sections(labels, valid):
    labels, valid = (torch.from_numpy(a)[None] for a in (labels, valid))
    pair = pair_targets(labels, valid)
    volume = volume_targets(labels, valid, NEIGHBORHOODS[3], together=False)
    assert torch.equal(pair.affinity, volume.affinity[:, :, 1])
    assert torch.equal(pair.usable, volume.usable[:, :, 1])


@given(LABELS, VALID)
def test_classes_are_balanced_over_all_channels_of_a_teacher(labels, valid):
    offsets = NEIGHBORHOODS[12]
    found = volume_targets(*(torch.from_numpy(a)[None] for a in (labels, valid)), offsets)
    parts = [twin.targets(labels, valid, offset) for offset in offsets]
    affinity, usable = (np.stack(part) for part in zip(*parts, strict=True))
    np.testing.assert_allclose(found.weights[0], twin.weights(affinity, usable), rtol=1e-5)


def test_the_rarer_class_weighs_as_much_as_the_other_unless_it_is_very_rare():
    labels = torch.ones(1, 2, 8, 10, dtype=torch.int64)
    labels[:, :, 3] = 0
    targets = pair_targets(labels, torch.ones_like(labels, dtype=torch.bool))
    for channel in range(3):
        one, weight = targets.affinity[0, channel], targets.weights[0, channel]
        assert float(weight[one > 0].sum()) == pytest.approx(
            float(weight[one == 0].sum()), rel=1e-4
        )


def test_what_is_not_valid_is_never_usable_and_weighs_nothing():
    labels = torch.ones(1, 2, 4, 6, dtype=torch.int64)
    valid = torch.ones_like(labels, dtype=torch.bool)
    valid[0, 0] = False  # the section before is missing
    targets = pair_targets(labels, valid)
    assert not targets.usable[0, 0].any()
    assert not targets.weights[0, 0].any()
    assert targets.usable[0, 1, 1:].all()


@pytest.mark.parametrize("offset", [(-1, 0, 0), (0, 2, -1), (3, 0, 0), (0, -9, 9)])
def test_shifting_gives_what_lies_at_the_offset_or_0(offset):
    volume = torch.arange(1, 2 * 3 * 4 + 1).view(2, 3, 4)
    found = shifted(volume, offset)
    expected = torch.zeros_like(volume)
    for p, q in twin.links((2, 3, 4), offset):
        expected[p] = volume[q]
    assert torch.equal(found, expected)
