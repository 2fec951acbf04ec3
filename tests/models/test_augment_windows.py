"""Poses of 3D networks: carried home pair by pair, the same for every box and cell."""

import numpy as np
import pytest
import torch
from models.teachers import SMALL
from models.test_windows import MALA_SIZES, SIZES, codes_of, raw_volume
from reference.augment_windows import mean_affinities, turned

from emslice.geometry import windows
from emslice.geometry.boxes import Roi
from emslice.models.augment import POSES
from emslice.models.augment_windows import AugmentedRunner, carry_home
from emslice.models.predictor import facts_of, make_predictor
from emslice.models.profile import resolve_profile
from emslice.models.windows import FoldedRunner


def predictor_of(name, shape, augment):
    network, sizes = SMALL[name](), MALA_SIZES if name.startswith("mala") else SIZES
    facts = facts_of(network, shape, **sizes, augment=augment)
    profile = resolve_profile(precision="float32")
    return make_predictor(network, facts.lattice, profile, augment)


@pytest.mark.parametrize("augment", ["flips", "all"])
@pytest.mark.parametrize("name", ["embedding", "affinity", "savem3", "mala"])
def test_the_mean_is_that_of_what_poses_say_of_each_pair_of_voxels(name, augment):
    network = SMALL[name]()
    margin = network.margin
    shape = (30, 214, 241) if name == "mala" else (5, 16, 32)
    runner, volume = FoldedRunner(network, torch.float32), raw_volume(shape)
    found = AugmentedRunner(runner, POSES[augment]).affinities(volume)
    expected = mean_affinities(runner, volume, POSES[augment], margin)
    assert len({runner.affinities(turned(volume, p)).tobytes() for p in POSES[augment]}) > 2
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("pose", POSES["all"], ids=str)
@pytest.mark.parametrize("shape", [(3, 5, 4), (1, 2, 1)])
def test_affinities_that_know_no_direction_are_the_same_in_every_pose(pose, shape):
    """Those of raw itself: but for the first lines nothing may move."""
    values = np.random.default_rng(3).random(shape)

    def between(array):
        affinity = np.full((3, *array.shape), 9.0, np.float32)
        for axis in range(3):
            own = np.moveaxis(array, axis, 0)
            np.moveaxis(affinity[axis], axis, 0)[1:] = np.minimum(own[1:], own[:-1])
        return affinity

    upright, home = between(values), carry_home(between(turned(values, pose)), pose)
    for axis, back in enumerate((pose.reverse, pose.flip_y, pose.flip_x)):
        mine, expected = (np.moveaxis(a[axis], axis, 0) for a in (home, upright))
        np.testing.assert_array_equal(mine[1:], expected[1:])
        assert (mine[0] == (0 if back else 9)).all()


def test_one_pose_is_the_network_as_it_is():
    runner, volume = FoldedRunner(SMALL["embedding"](), torch.float32), raw_volume((5, 16, 32))
    one = AugmentedRunner(runner, POSES["none"]).affinities(volume)
    np.testing.assert_array_equal(one, runner.affinities(volume))


@pytest.mark.parametrize("box", [((0, 0, 0), (1, 40, 9)), ((5, 13, 40), (4, 23, 12))])
def test_a_box_has_the_codes_that_the_whole_volume_has_there(box):
    raw = raw_volume((9, 40, 61))
    predictor = predictor_of("embedding", raw.shape, "flips")
    place = tuple(slice(low, low + n) for low, n in zip(*box, strict=True))
    whole = codes_of(raw, predictor)
    np.testing.assert_array_equal(codes_of(raw, predictor, Roi(*box)), whole[:, *place])
    assert not np.array_equal(whole, codes_of(raw, predictor_of("embedding", raw.shape, "none")))


def test_the_number_of_workers_and_the_size_of_cells_change_no_code(monkeypatch):
    raw = raw_volume((7, 40, 50))
    predictor = predictor_of("ssns", raw.shape, "flips")
    whole = codes_of(raw, predictor)
    monkeypatch.setattr(windows, "STEPS", {True: 2, False: 1})
    np.testing.assert_array_equal(codes_of(raw, predictor, workers=2), whole)


@pytest.mark.parametrize("name", ["embedding", "mala"])
def test_the_plan_counts_the_memory_of_poses(name):
    sizes = MALA_SIZES if name == "mala" else SIZES
    facts = {
        augment: facts_of(SMALL[name](), (9, 40, 61), **sizes, augment=augment) for augment in POSES
    }
    more = facts["flips"].peak_bytes - facts["none"].peak_bytes
    assert more == facts["all"].peak_bytes - facts["none"].peak_bytes > 0
    assert facts["all"].lattice == facts["none"].lattice
