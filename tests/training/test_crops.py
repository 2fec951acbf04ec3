"""Crops: one sample for one number, whoever asks; fair draws; nothing from beyond the volume."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training.volumes import EVERYTHING, MOVED, SHAPE, along, noise

from emslice.errors import ConfigError
from emslice.training.crops import CropDataset, make_loader
from emslice.training.sources import TrainingVolume

CROP = (3, 17, 29)


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name].numpy(), other[name].numpy(), err_msg=name)


def batches(loader):
    return [{name: part.numpy() for name, part in batch.items()} for batch in loader]


def test_a_sample_is_what_the_interface_says():
    dataset = CropDataset([noise()], CROP, EVERYTHING, seed=1)
    for index in range(20):
        sample = dataset[index]
        assert {name: part.dtype for name, part in sample.items()} == {
            "raw": torch.float32, "labels": torch.int64, "valid": torch.bool,
            "labelled": torch.bool,
        }  # fmt: skip
        assert all(sample[name].shape == CROP for name in ("raw", "labels", "valid"))
        assert sample["labelled"].shape == ()
        assert sample["raw"].min() >= 0
        assert sample["raw"].max() <= 1
        assert sample["labels"].min() >= 0


def test_an_untouched_crop_is_the_volume_as_it_lies():
    sample = CropDataset([along(2)], CROP, None, seed=0)[4]
    expected = torch.arange(29) + sample["labels"][0, 0, 0]
    assert (sample["labels"] == expected).all()
    torch.testing.assert_close(255 * sample["raw"], (sample["labels"] - 1).float())
    assert sample["valid"].all()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**40), index=st.integers(0, 2**50), before=st.integers(0, 99))
def test_a_sample_is_a_pure_function_of_seed_and_number(seed, index, before):
    volume = noise()
    once = CropDataset([volume], CROP, EVERYTHING, seed)[index]
    np.random.seed(before)
    torch.manual_seed(before)
    dataset = CropDataset([volume], CROP, EVERYTHING, seed)
    dataset[before]
    same(dataset[index], once)


def test_other_numbers_and_other_seeds_give_other_samples():
    volume = noise()
    seen = {
        CropDataset([volume], CROP, EVERYTHING, seed)[index]["raw"].numpy().tobytes()
        for seed in range(4)
        for index in range(4)
    }
    assert len(seen) == 16


def test_no_global_random_state_is_touched():
    dataset = CropDataset([noise()], CROP, EVERYTHING, seed=1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    for _ in make_loader(dataset, 2, 0, 2, workers=0):
        pass
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.get_rng_state().tolist() == states[2]


def test_the_number_of_threads_changes_nothing():
    dataset = CropDataset([noise()], CROP, EVERYTHING, seed=1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = [dataset[index] for index in range(6)]
        torch.set_num_threads(2)
        for index, expected in enumerate(one):
            same(dataset[index], expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_no_batch(workers):
    dataset = CropDataset([noise(), along(1)], CROP, EVERYTHING, seed=5)
    alone = batches(make_loader(dataset, 2, 0, 5, workers=0))
    spread = batches(make_loader(dataset, 2, 0, 5, workers=workers))
    assert len(alone) == 5
    for one, other in zip(alone, spread, strict=True):
        np.testing.assert_equal(one, other)


def test_a_resume_in_the_middle_goes_on_with_the_same_batches():
    dataset = CropDataset([noise()], CROP, EVERYTHING, seed=5)
    whole = batches(make_loader(dataset, 2, 0, 6, workers=0))
    rest = batches(make_loader(dataset, 2, 4, 2, workers=0))
    np.testing.assert_equal(whole[4:], rest)


def test_more_devices_share_the_same_global_batch():
    dataset = CropDataset([noise()], CROP, EVERYTHING, seed=5)
    alone = batches(make_loader(dataset, 6, 1, 2, workers=0))
    parts = [batches(make_loader(dataset, 2, 1, 2, workers=0, rank=r, world=3)) for r in range(3)]
    for step, batch in enumerate(alone):
        for name, stacked in batch.items():
            joined = np.concatenate([part[step][name] for part in parts])
            np.testing.assert_array_equal(stacked, joined)


def test_sample_numbers_are_those_that_the_design_states():
    dataset = CropDataset([noise()], CROP, EVERYTHING, seed=5)
    [batch] = batches(make_loader(dataset, 2, 7, 1, workers=0, rank=1, world=3))
    for place in range(2):
        expected = dataset[7 * 2 * 3 + 1 * 2 + place]
        np.testing.assert_array_equal(batch["raw"][place], expected["raw"].numpy())


def test_few_distinct_samples_come_again_in_the_same_order():
    dataset = CropDataset([noise()], CROP, EVERYTHING, seed=5, distinct=3)
    for index in range(3):
        same(dataset[index], dataset[index + 3])
        same(dataset[index], CropDataset([noise()], CROP, EVERYTHING, seed=5)[index])


def test_volumes_are_drawn_in_proportion_to_their_weights():
    volumes = [
        TrainingVolume.from_arrays(np.full((2, 3, 5), grey, np.uint8), weight=weight)
        for grey, weight in ((0, 1.0), (1, 0.0), (2, 3.0))
    ]
    dataset = CropDataset(volumes, (1, 2, 3), None, seed=0)
    greys = [round(255 * float(dataset[index]["raw"].max())) for index in range(2000)]
    counts = np.bincount(greys, minlength=3)
    assert counts[1] == 0
    assert 0.72 < counts[2] / 2000 < 0.78


def test_every_place_of_a_crop_is_reached_the_first_and_the_last_too():
    shape = (3, 5, 6)
    raw = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    dataset = CropDataset([TrainingVolume.from_arrays(raw)], (2, 3, 5), None, seed=0)
    corners = {round(255 * float(dataset[index]["raw"][0, 0, 0])) for index in range(300)}
    assert corners == {int(raw[z, y, x]) for z in range(2) for y in range(3) for x in range(2)}


def test_an_unlabelled_volume_has_labels_of_zero_and_says_so():
    dataset = CropDataset([noise(labelled=False), noise()], CROP, MOVED, seed=0)
    samples = [dataset[index] for index in range(20)]
    assert {bool(sample["labelled"]) for sample in samples} == {True, False}
    for sample in samples:
        assert bool(sample["labels"].any()) == bool(sample["labelled"])


def test_masked_voxels_are_not_valid():
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, 20:50, 30:] = 2
    dataset = CropDataset([along(2, mask=mask)], CROP, MOVED, seed=0)
    seen = 0
    for index in range(20):
        sample = dataset[index]
        assert (sample["labels"][sample["valid"]] > 30).all()
        seen += int(sample["valid"].sum())
    assert seen > 0


def test_places_with_enough_labels_are_preferred():
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, :30, :40] = 7
    raw = np.ones(SHAPE, np.uint8)
    volume = TrainingVolume.from_arrays(raw, labels)
    shares = {}
    for least in (0.0, 0.5):
        dataset = CropDataset([volume], CROP, None, seed=0, min_labelled=least)
        shares[least] = [float((dataset[n]["labels"] > 0).float().mean()) for n in range(30)]
    assert min(shares[0.0]) == 0
    assert min(shares[0.5]) >= 0.5


def test_the_best_place_is_taken_where_none_has_enough_labels():
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, :2] = 1
    volume = TrainingVolume.from_arrays(np.ones(SHAPE, np.uint8), labels)
    dataset = CropDataset([volume], CROP, None, 0, min_labelled=0.9, tries=500)
    assert all(dataset[index]["labels"].any() for index in range(10))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": (3, 62, 29)}, r"data.train\[0\]: \[7, 61, 83\] voxels.*crop of \[3, 62, 29\]"),
        ({"crop": (0, 5, 5)}, r"crop \[0, 5, 5\]"),
        ({"volumes": []}, "0 volumes"),
        ({"seed": -1}, "seed -1"),
        ({"distinct": 0}, "distinct 0"),
        ({"min_labelled": 1.5}, "min_labelled 1.5"),
    ],
)
def test_what_cannot_be_cut_is_refused(change, message):
    volume = noise(name="data.train[0]")
    given = {"volumes": [volume], "crop": CROP, "augment": None, "seed": 0} | change
    with pytest.raises(ConfigError, match=message):
        CropDataset(**given)


def test_a_loader_with_a_rank_beyond_the_world_is_refused():
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        make_loader(CropDataset([noise()], CROP, None, 0), 1, 0, 1, 0, rank=2, world=2)
