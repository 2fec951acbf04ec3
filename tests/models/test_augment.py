"""Poses: carried home exactly, on tiles as on whole sections, the same for all that is asked."""

import numpy as np
import pytest
import torch
from reference.augment import codes_in_pose, mean_codes

from emslice.geometry.boxes import Roi
from emslice.geometry.lattice import TileLattice
from emslice.models.augment import POSES, AugmentedPredictor
from emslice.models.pairs import PairPredictor
from emslice.models.predictor import facts_of, make_predictor
from emslice.models.profile import resolve_profile
from emslice.models.student import Student
from emslice.stages.predict import predict
from emslice.volumes import ArrayVolume

SHAPE = (3, 37, 58)  # padded to 48 and 64: by 5 and 6, by 3 and 3


@pytest.fixture(scope="module")
def network():
    """Random weights that give affinities of all sizes, other ones in each pose."""
    torch.manual_seed(4)
    student = Student(2, 3)
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.weight.data.uniform_(1, 3)
            module.bias.data.normal_()
    return student.eval()


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(2).integers(1, 256, SHAPE).astype(np.uint8)


def profile_of(core):
    return resolve_profile(tile=core, precision="float32")


def predictor(network, shape, augment, core=1024):
    lattice = facts_of(network, shape, core, augment=augment).lattice
    return make_predictor(network, lattice, profile_of(core), augment)


def whole(network, raw, augment, core=1024):
    volume = ArrayVolume(raw)
    return predict(volume, predictor(network, raw.shape, augment, core), volume.roi).array


def pair_of(network):
    """Function that gives the codes of the later of two whole padded sections."""

    def codes(before, here):
        lattice = TileLattice(here.shape)
        tile = next(lattice.tiles())
        return PairPredictor(network, lattice, profile_of(1024)).affinities(
            np.stack([before, here]), tile
        )[:, 0]

    return codes


@pytest.mark.parametrize("pose", POSES["all"], ids=str)
def test_each_pose_is_that_of_whole_sections_turned_and_carried_home(network, raw, pose):
    lattice = TileLattice(SHAPE[1:], last=SHAPE[0] - 1)
    found = predict(
        ArrayVolume(raw),
        AugmentedPredictor(
            lambda turned: PairPredictor(network, turned, profile_of(1024)), lattice,
            profile_of(1024), (pose,),
        ),
        Roi((0, 0, 0), SHAPE),
    ).array  # fmt: skip
    expected = codes_in_pose(raw, pose, lattice.axes, pair_of(network))
    np.testing.assert_array_equal(found, mean_codes([expected]))


@pytest.mark.parametrize("augment", ["flips", "all"])
def test_poses_are_averaged_and_rounded_once(network, raw, augment):
    axes, pair = TileLattice(SHAPE[1:]).axes, pair_of(network)
    parts = [codes_in_pose(raw, pose, axes, pair) for pose in POSES[augment]]
    assert len({part.tobytes() for part in parts}) == len(parts)
    np.testing.assert_array_equal(whole(network, raw, augment), mean_codes(parts))


def test_one_pose_is_the_network_as_it_is(network, raw):
    lattice = TileLattice(SHAPE[1:], 32, last=SHAPE[0] - 1)
    profile = profile_of(32)
    one = AugmentedPredictor(
        lambda turned: PairPredictor(network, turned, profile), lattice, profile, POSES["none"]
    )
    box = Roi((0, 0, 0), SHAPE)
    np.testing.assert_array_equal(
        predict(ArrayVolume(raw), one, box).array, whole(network, raw, "none", 32)
    )


@pytest.mark.parametrize("augment", ["flips", "all"])
def test_tiles_agree_with_whole_sections_within_one_code(network, augment):
    raw = np.random.default_rng(5).integers(1, 256, (2, 90, 301)).astype(np.uint8)
    tiled, one = (whole(network, raw, augment, core) for core in (64, 1024))
    assert np.abs(tiled.astype(int) - one).max() <= 1


def test_a_box_has_the_codes_that_the_whole_volume_has_there(network):
    """In both runs of sections and two tiles, with poses that look behind the box."""
    raw = np.random.default_rng(6).integers(1, 256, (19, 80, 70)).astype(np.uint8)
    volume, roi = ArrayVolume(raw), Roi((14, 40, 5), (4, 30, 50))
    sixteen = predictor(network, raw.shape, "all", 48)
    found = predict(volume, sixteen, roi, workers=2).array
    expected = predict(volume, sixteen, Roi((12, 0, 0), (7, 80, 70)))
    np.testing.assert_array_equal(found, expected.read(roi))


def test_all_poses_of_a_turned_volume_are_the_turned_answer(network):
    """Sections of whole sixteens, so that padding is the same on all sides."""
    raw = np.random.default_rng(7).integers(1, 256, (4, 48, 32)).astype(np.uint8)
    codes = whole(network, raw, "all")
    across = whole(network, np.ascontiguousarray(raw.swapaxes(1, 2)), "all")
    np.testing.assert_array_equal(across, codes[[0, 2, 1]].swapaxes(2, 3))
    down = whole(network, np.ascontiguousarray(raw[:, ::-1]), "all")
    np.testing.assert_array_equal(down[1, :, 1:], codes[1, :, :0:-1])
    np.testing.assert_array_equal(down[0], codes[0, :, ::-1])
    back = whole(network, np.ascontiguousarray(raw[::-1]), "all")
    np.testing.assert_array_equal(back[0, 1:], codes[0, :0:-1])
    np.testing.assert_array_equal(back[1:], codes[1:, ::-1])


def test_blank_raw_has_no_affinities_and_its_neighbours_have_those_of_every_pose(network, raw):
    raw = raw.copy()
    raw[1], raw[:, :20, :20] = 0, 0
    codes = whole(network, raw, "all")
    assert not codes[:, raw == 0].any()
    parts = [codes_in_pose(raw, pose, TileLattice(SHAPE[1:]).axes, pair_of(network))
             for pose in POSES["all"]]  # fmt: skip
    imaged = raw > 0
    np.testing.assert_array_equal(codes[:, imaged], mean_codes(parts)[:, imaged])


@pytest.mark.parametrize("length", [1, 2, 5])
def test_sections_of_a_few_voxels_have_affinities_too(network, length):
    raw = np.random.default_rng(8).integers(1, 256, (2, length, 40)).astype(np.uint8)
    codes = whole(network, raw, "all")
    assert codes.shape == (3, *raw.shape)
    first = codes[1, :, 0]
    np.testing.assert_array_equal(first, codes[1, :, min(2, length - 1)])
    assert length > 1 or (first == 255).all()


def test_the_number_of_poses_is_what_the_configuration_says():
    assert {name: len(set(poses)) for name, poses in POSES.items()} == {
        "none": 1, "flips": 4, "all": 16
    }  # fmt: skip
