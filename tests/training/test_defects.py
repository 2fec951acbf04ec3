"""Defects of sections: what moves moves as a whole, what cannot be seen is not valid."""

from dataclasses import replace

import numpy as np
import pytest
from training.volumes import EVERYTHING, MOVED, NO_DEFECTS, NOTHING, along, noise

from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi
from emslice.training.augment import Flips, take
from emslice.training.crops import CropDataset
from emslice.training.defects import draw_displacements, slide
from emslice.training.samples import read_straight

CROP = (5, 17, 29)


def crops(volume, n=40, crop=CROP, **defects):
    augment = replace(NOTHING, defects=replace(NO_DEFECTS, **defects))
    dataset = CropDataset([volume], crop, augment, seed=2)
    return [{name: part.numpy() for name, part in dataset[k].items()} for k in range(n)]


def test_a_shifted_section_lies_elsewhere_alone():
    steps = set()
    for crop in crops(along(2), shift=1):
        first = crop["labels"][:, 0, 0]
        assert (crop["labels"] - first[:, None, None] == np.arange(29)).all() or (
            not crop["valid"].all()
        )
        off = first - np.median(first)
        assert (off != 0).sum() <= 1
        assert np.abs(off).max() <= 6
        steps.add(int(np.abs(off).max()))
    assert len(steps) > 3


def test_all_sections_from_one_on_are_misaligned():
    cuts = set()
    for crop in crops(along(2), misalignment=1):
        jumps = np.flatnonzero(np.diff(crop["labels"][:, 8, 14]))
        assert len(jumps) <= 1
        cuts.update(jumps.tolist())
    assert cuts == {0, 1, 2, 3}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_moved_sections_take_labels_and_validity_with_them(axis):
    for crop in crops(along(axis), shift=1, misalignment=1):
        np.testing.assert_array_equal(crop["valid"], crop["labels"] > 0)
        np.testing.assert_allclose(
            255 * crop["raw"][crop["valid"]], crop["labels"][crop["valid"]] - 1, atol=1e-4
        )


def test_what_a_moved_section_brings_in_is_real_where_the_volume_has_it():
    """One shift and one misalignment need no more than the largest of them on each side."""
    volume, box = along(1, (5, 29, 41)), Roi((0, 6, 6), CROP)
    augment = replace(NOTHING, defects=replace(NO_DEFECTS, shift=1, misalignment=1))
    for seed in range(60):
        sample = take(volume, box, Flips((), False), augment, np.random.default_rng(seed))
        assert sample.valid.all()


def test_a_displacement_says_where_the_source_of_a_section_lies():
    larger = read_straight(along(2), Roi((0, 0, 0), (3, 19, 33)))
    moved = slide(larger, np.array([[0, 0], [2, -1], [0, 3]]), (17, 29))
    assert moved.labels[:, 0, 0].tolist() == [2, 1, 5]


def test_a_missing_section_is_black_and_not_valid_and_one_always_stays():
    counts = set()
    for crop in crops(noise(), missing=1, missing_sections=9):
        gone = ~crop["valid"].any((1, 2))
        assert (crop["raw"][gone] == 0).all()
        assert crop["valid"][~gone].all()
        where = np.flatnonzero(gone)
        assert (np.diff(where) == 1).all()
        counts.add(len(where))
    assert counts == {1, 2, 3, 4}


def test_a_lone_section_is_never_missing_nor_moved():
    for crop in crops(along(2), crop=(1, 17, 29), missing=1, shift=1, misalignment=1):
        assert crop["valid"].all()
        assert (crop["labels"][0] == crop["labels"][0, 0, 0] + np.arange(29)).all()


def test_blur_smooths_one_section_and_leaves_labels():
    plain = crops(noise())
    for crop, before in zip(crops(noise(), blur=1), plain, strict=True):
        np.testing.assert_array_equal(crop["labels"], before["labels"])
        changed = (crop["raw"] != before["raw"]).any((1, 2))
        assert changed.sum() == 1
        assert crop["raw"][changed].std() < before["raw"][changed].std()


def test_dirt_darkens_spots_of_one_section_and_leaves_labels():
    shares = []
    for crop, before in zip(crops(noise(), dirt=1), crops(noise()), strict=True):
        np.testing.assert_array_equal(crop["labels"], before["labels"])
        assert crop["valid"].all()
        changed = crop["raw"] != before["raw"]
        assert changed.any((1, 2)).sum() <= 1
        shares.append(changed.mean())
        bright = before["raw"] > 0.3
        assert (crop["raw"] <= before["raw"])[bright].all()
    assert 0 < np.mean(shares) < 0.5


def test_noise_stays_in_range_and_grows_no_further_than_asked():
    before = crops(along(2), n=10)
    spread = [
        (crop["raw"] - plain["raw"]).std()
        for crop, plain in zip(crops(along(2), n=10, noise=1), before, strict=True)
    ]
    assert 0 < min(spread) < max(spread) < 0.105


def test_defects_of_probability_zero_never_happen():
    for crop, plain in zip(crops(noise()), crops(noise(), displacement=50), strict=True):
        np.testing.assert_array_equal(crop["raw"], plain["raw"])


def test_displacements_reach_the_largest_both_ways():
    rng = np.random.default_rng(0)
    always = replace(NO_DEFECTS, shift=1, displacement=2)
    drawn = np.stack([draw_displacements(always, rng, 4) for _ in range(200)])
    assert set(np.unique(drawn)) == {-2, -1, 0, 1, 2}


def test_the_first_section_stays_where_the_rest_is_misaligned():
    rng = np.random.default_rng(0)
    always = replace(NO_DEFECTS, misalignment=1)
    drawn = np.stack([draw_displacements(always, rng, 4) for _ in range(50)])
    assert (drawn[:, 0] == 0).all()
    assert drawn[:, 3].any(1).mean() > 0.9


@pytest.mark.parametrize("crop", [(1, 17, 29), (2, 29, 17), (7, 61, 83), (3, 1, 2)])
def test_every_change_at_once_works_on_crops_of_any_shape(crop):
    dataset = CropDataset([noise()], crop, EVERYTHING, seed=0)
    for index in range(10):
        sample = dataset[index]
        assert sample["raw"].shape == crop
        assert np.isfinite(sample["raw"].numpy()).all()


def test_a_displacement_larger_than_the_volume_is_no_end():
    wild = replace(MOVED, defects=replace(MOVED.defects, displacement=150))
    dataset = CropDataset([along(1)], CROP, wild, seed=0)
    for index in range(4):
        sample = dataset[index]
        assert ((sample["labels"] > 0) == sample["valid"]).all()


@pytest.mark.parametrize(
    ("field", "value"), [("shift", -0.1), ("displacement", -1), ("dirt_spots", 0)]
)
def test_a_defect_that_means_nothing_is_refused(field, value):
    with pytest.raises(ConfigError, match=f"defects.{field}"):
        replace(NO_DEFECTS, **{field: value})
