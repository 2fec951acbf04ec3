"""Augmentation: raw, labels and validity never get out of step, and labels never blend."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from training.volumes import EVERYTHING, MOVED, NOTHING, SHAPE, along, noise

from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi
from emslice.training.augment import Flips, change_grey, draw_flips, elastic_field
from emslice.training.crops import CropDataset
from emslice.training.samples import Sample, Warp, read_straight, read_warped
from emslice.training.sources import TrainingVolume

CROP = (3, 17, 29)
indices = st.integers(0, 2**32)


@settings(max_examples=20, deadline=None)
@given(index=indices, axis=st.sampled_from([0, 1, 2]))
def test_raw_and_labels_of_a_voxel_come_from_the_same_place(index, axis):
    """Along each axis raw is interpolated to the source's index, labels to the nearest one."""
    sample = CropDataset([along(axis)], CROP, MOVED, seed=0)[index]
    valid = sample["valid"].numpy()
    source, nearest = 255 * sample["raw"].numpy(), sample["labels"].numpy() - 1
    assert np.abs(source - nearest)[valid].max() <= 0.501


@settings(max_examples=20, deadline=None)
@given(index=indices, crop=st.sampled_from([(7, 61, 83), (2, 50, 70), (3, 17, 29)]))
def test_valid_is_where_a_label_of_the_volume_is(index, crop):
    """All labels of this volume are above 0, so what comes from beyond is known by its 0."""
    sample = CropDataset([along(1)], crop, MOVED, seed=0)[index]
    np.testing.assert_array_equal(sample["valid"].numpy(), sample["labels"].numpy() > 0)


@settings(max_examples=12, deadline=None)
@given(index=indices)
def test_labels_never_blend(index):
    raw = np.zeros(SHAPE, np.uint8)
    labels = np.random.default_rng(1).choice([0, 3, 2**40, 2**63 + 5], SHAPE[1:]).astype(np.uint64)
    volume = TrainingVolume.from_arrays(raw, np.broadcast_to(labels, SHAPE))
    sample = CropDataset([volume], CROP, MOVED, seed=0)[index]
    assert set(np.unique(sample["labels"].numpy())) <= {0, 1, 2, 3}


@settings(max_examples=12, deadline=None)
@given(index=indices)
def test_nothing_black_is_made_where_the_volume_ends(index):
    white = TrainingVolume.from_arrays(np.full(SHAPE, 255, np.uint8))
    sample = CropDataset([white], (2, 61, 83), MOVED, seed=0)[index]
    assert not sample["valid"].all()
    assert sample["raw"].min() > 0.999


def test_what_lies_beyond_the_sections_is_never_read(tmp_path):
    """Outside sections 2 to 5 and rows 4 to 60 everything is white, inside it is not."""
    raw = np.full(SHAPE, 255, np.uint8)
    raw[2:6, 4:60, 5:80] = 9
    inner = TrainingVolume.from_arrays(raw)
    inner.roi = Roi((2, 4, 5), (4, 56, 75))
    dataset = CropDataset([inner], (4, 40, 50), MOVED, seed=0)
    for index in range(15):
        assert dataset[index]["raw"].max() * 255 < 9.001


def affinity(labels, axis):
    """1 between a voxel and its lower neighbour if both are one object; without the first."""
    upper, lower = (np.moveaxis(labels, axis, 0)[part] for part in (slice(1, None), slice(-1)))
    return np.moveaxis((upper == lower) & (upper > 0), 0, axis)


@given(axes=st.sets(st.sampled_from([0, 1, 2])), transposed=st.booleans(), seed=st.integers(0, 9))
def test_affinities_of_flipped_labels_are_the_flipped_affinities(axes, transposed, seed):
    labels = np.random.default_rng(seed).integers(0, 3, (3, 5, 7)).astype(np.int32)
    flips = Flips(tuple(sorted(axes)), transposed)
    turned = flips(Sample(labels.astype(np.float32), labels, labels > 0))
    np.testing.assert_array_equal(turned.raw, turned.labels)
    np.testing.assert_array_equal(turned.valid, turned.labels > 0)
    assert flips.before(turned.labels.shape) == labels.shape
    for axis in range(3):
        source = {0: 0, 1: 2, 2: 1}[axis] if transposed else axis
        plain = affinity(labels, source)
        alike = Sample(plain.astype(np.float32), plain.astype(np.int32), plain)
        np.testing.assert_array_equal(affinity(turned.labels, axis), flips(alike).valid)


def test_all_sixteen_flips_are_drawn():
    rng = np.random.default_rng(0)
    always = replace(NOTHING, flip=1)
    drawn = {draw_flips(always, rng, CROP, SHAPE) for _ in range(300)}
    assert len(drawn) == 16


def test_a_crop_that_has_no_room_to_be_transposed_is_not():
    rng = np.random.default_rng(0)
    always = replace(NOTHING, flip=1)
    drawn = {draw_flips(always, rng, (3, 17, 70), SHAPE) for _ in range(100)}
    assert {flips.transposed for flips in drawn} == {False}


def test_reversed_sections_keep_their_labels():
    dataset = CropDataset([along(0)], (2, 17, 29), replace(NOTHING, flip=1), seed=0)
    orders = {tuple(np.diff(dataset[n]["labels"][:, 0, 0].numpy())) for n in range(30)}
    assert orders == {(1,), (-1,)}


def test_a_warp_that_does_nothing_gives_the_voxels_as_they_lie():
    volume = noise()
    window = Roi((2, 11, 13), CROP)
    still = Warp(0.0, (1.0, 1.0), np.zeros((2, *CROP[1:]), np.float32))
    straight, warped = read_straight(volume, window), read_warped(volume, window, still)
    np.testing.assert_allclose(warped.raw, straight.raw, atol=1e-4)
    np.testing.assert_array_equal(warped.labels, straight.labels)
    assert warped.valid.all()


def test_a_quarter_turn_is_that_of_numpy():
    volume = noise()
    window, turned = Roi((2, 20, 22), (3, 17, 13)), Roi((2, 22, 20), (3, 13, 17))
    warped = read_warped(volume, window, Warp(np.pi / 2, (1.0, 1.0), None))
    straight = read_straight(volume, turned)
    alike = [np.rot90(straight.labels, k, (1, 2)) for k in (1, -1)]
    assert any(np.array_equal(warped.labels, rotated) for rotated in alike)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_larger_factor_makes_things_larger(axis):
    factors = (1.25, 1.0) if axis == 1 else (1.0, 1.25)
    warped = read_warped(along(axis), Roi((0, 15, 25), CROP), Warp(0.0, factors, None))
    steps = np.diff(255 * warped.raw, axis=axis)
    np.testing.assert_allclose(steps, 1 / 1.25, atol=1e-3)


def test_a_warp_is_what_scipy_interpolates_at_the_places_it_defines():
    """The source of a voxel: its place from the centre, rescaled, rotated, displaced."""
    volume = noise()
    window, box = Roi((2, 7, 40), CROP), volume.roi
    field = elastic_field(np.random.default_rng(5), CROP[1:], 20, 3)
    angle, factors = 0.7, (1.2, 0.85)
    warped = read_warped(volume, window, Warp(angle, factors, field))
    centre = np.array([7 + 8, 40 + 14.0])[:, None, None]
    out = np.indices(CROP[1:]) - np.array([8, 14.0])[:, None, None]
    scaled = out / np.array(factors)[:, None, None]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    places = centre + np.einsum("ij,jyx->iyx", turn, scaled) + field
    voxels = volume.read(box)
    for k, z in enumerate(range(2, 5)):
        near = ndimage.map_coordinates(voxels.labels[z], places, order=0, mode="nearest")
        grey = ndimage.map_coordinates(voxels.raw[z] / 255, places, order=1, mode="nearest")
        inside = warped.valid[k]
        assert 0.8 < inside.mean() < 1
        np.testing.assert_array_equal(warped.labels[k][inside], near[inside])
        np.testing.assert_allclose(warped.raw[k][inside], grey[inside], atol=2e-4)


def test_windows_beyond_the_volume_are_mirrored_as_warps_mirror_them():
    volume = noise()
    window = Roi((0, -9, 70), (2, 31, 31))
    still = Warp(0.0, (1.0, 1.0), None)
    straight, warped = read_straight(volume, window), read_warped(volume, window, still)
    np.testing.assert_allclose(warped.raw, straight.raw, atol=1e-4)
    np.testing.assert_array_equal(warped.labels, straight.labels)
    np.testing.assert_array_equal(warped.valid, straight.valid)


def test_more_ids_than_float32_has_integers_stay_apart():
    raw = np.zeros((1, 16, 18), np.uint8)
    volume = TrainingVolume.from_arrays(raw, np.arange(1, 289).reshape(raw.shape))
    volume.load()
    volume._memory["labels"] += 2**24
    still = Warp(0.0, (1.0, 1.0), None)
    warped = read_warped(volume, Roi((0, 0, 0), raw.shape), still)
    assert len(np.unique(warped.labels)) == 288


def test_elastic_displacement_is_smoothed_noise():
    """Deviation of noise in [-1, 1] after a Gaussian: alpha / (sqrt(3) 2 sqrt(pi) sigma)."""
    field = elastic_field(np.random.default_rng(0), (200, 311), 16, 4)
    assert field.shape == (2, 200, 311)
    assert field.dtype == np.float32
    assert field.std() == pytest.approx(16 / (np.sqrt(3) * 2 * np.sqrt(np.pi) * 4), rel=0.05)
    assert np.abs(np.diff(field, axis=2)).max() < 1


@pytest.mark.parametrize("seed", range(6))
def test_grey_values_keep_their_order_and_range(seed):
    ramp = np.broadcast_to(np.linspace(0, 1, 50, dtype=np.float32), (3, 5, 50)).copy()
    sample = Sample(ramp, np.ones(ramp.shape, np.int32), np.ones(ramp.shape, bool))
    change_grey(sample, EVERYTHING, np.random.default_rng(seed))
    assert (np.diff(sample.raw, axis=2) >= 0).all()
    assert 0 <= sample.raw.min() <= sample.raw.max() <= 1


@pytest.mark.parametrize(
    ("changes", "low", "high"),
    [
        ({"contrast": 0.4, "brightness": 0, "gamma": 0}, 0.25 * 0.8, 0.25 * 1.2),
        ({"contrast": 0, "brightness": 0.4, "gamma": 0}, 0.05, 0.45),
        ({"contrast": 0, "brightness": 0, "gamma": 1}, 0.25**2, 0.25**0.5),
    ],
    ids=["contrast", "brightness", "gamma"],
)
def test_grey_values_change_within_the_range_asked_for(changes, low, high):
    rng, greys = np.random.default_rng(0), []
    for _ in range(200):
        raw = np.full((1, 1, 1), 0.25, np.float32)
        sample = Sample(raw, np.ones(raw.shape, np.int32), np.ones(raw.shape, bool))
        change_grey(sample, replace(EVERYTHING, **changes), rng)
        greys.append(float(sample.raw[0, 0, 0]))
    assert low - 1e-6 <= min(greys) < low + 0.05 * (high - low)
    assert high - 0.05 * (high - low) < max(greys) <= high + 1e-6


def test_grey_values_change_by_stack_or_by_section():
    alike = set()
    for seed in range(20):
        raw = np.full((3, 5, 7), 0.5, np.float32)
        sample = Sample(raw, np.ones(raw.shape, np.int32), np.ones(raw.shape, bool))
        change_grey(sample, EVERYTHING, np.random.default_rng(seed))
        alike.add(len(np.unique(sample.raw)))
    assert alike == {1, 3}


def test_a_probability_of_zero_changes_nothing():
    never = replace(EVERYTHING, probability=0)
    one, other = (CropDataset([noise()], CROP, given, seed=0)[3] for given in (never, None))
    for name in one:
        np.testing.assert_array_equal(one[name].numpy(), other[name].numpy())


@pytest.mark.parametrize(
    ("field", "value"), [("flip", 1.5), ("degrees", -1), ("scale", 1), ("gamma", float("nan"))]
)
def test_a_size_that_means_nothing_is_refused(field, value):
    with pytest.raises(ConfigError, match=f"augment.{field}"):
        replace(NOTHING, **{field: value})
