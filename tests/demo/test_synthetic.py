import numpy as np
import pytest
from scipy import ndimage

from emslice.demo.synthetic import smooth_noise, synthetic_em

SHAPE = (12, 96, 130)


@pytest.fixture(scope="module")
def volume():
    return synthetic_em(SHAPE, (30, 6, 6), seed=0)


def test_the_same_seed_gives_the_same_bytes(volume):
    raw, truth = synthetic_em(SHAPE, (30, 6, 6), seed=0)
    assert raw.tobytes() == volume[0].tobytes()
    assert truth.tobytes() == volume[1].tobytes()


def test_another_seed_gives_another_volume(volume):
    raw, truth = synthetic_em(SHAPE, (30, 6, 6), seed=1)
    assert (raw != volume[0]).mean() > 0.5
    assert (truth != volume[1]).mean() > 0.5


@pytest.mark.parametrize(
    ("shape", "resolution_nm"),
    [
        (SHAPE, (30, 6, 6)),
        (SHAPE, (40, 4, 4)),
        ((1, 64, 40), (30, 6, 6)),
        ((5, 33, 71), (30, 8, 5)),
    ],
)
def test_any_shape_and_resolution_is_filled(shape, resolution_nm):
    raw, truth = synthetic_em(shape, resolution_nm, seed=2)
    assert raw.shape == truth.shape == shape
    assert (raw.dtype, truth.dtype) == (np.uint8, np.uint64)
    assert 0.02 < (truth == 0).mean() < 0.35
    assert len(np.unique(truth)) > 2


def test_every_id_is_one_piece(volume):
    truth = volume[1].astype(np.int64)
    assert truth.max() > 8
    for label in range(1, truth.max() + 1):
        _, pieces = ndimage.label(truth == label, np.ones((3, 3, 3)))
        assert pieces == 1


def test_two_ids_never_touch_within_a_section(volume):
    truth = volume[1]
    for axis in (1, 2):
        later, earlier = np.delete(truth, 0, axis), np.delete(truth, -1, axis)
        assert ((later == earlier) | (later == 0) | (earlier == 0)).all()


def test_a_process_goes_on_in_the_next_section(volume):
    later, earlier = volume[1][1:], volume[1][:-1]
    inside = (later > 0) & (earlier > 0)
    assert 0.9 < (later == earlier)[inside].mean() < 1


def test_interiors_are_bright_and_membranes_dark(volume):
    raw, truth = volume
    assert raw[truth > 0].mean() > raw[truth == 0].mean() + 40
    assert 100 < raw.mean() < 150
    assert 25 < raw.std() < 60


def test_some_dark_voxels_are_no_membrane(volume):
    raw, truth = volume
    deep = ndimage.binary_erosion(truth > 0, np.ones((1, 7, 7)))
    assert (raw[deep] < 90).mean() > 0.005


def test_sections_differ_in_contrast():
    raw, _ = synthetic_em((32, 64, 48), (30, 6, 6), seed=0)
    means = raw.mean((1, 2))
    assert means.std() > 5
    assert means.min() < means.mean() - 15


def test_smooth_noise_has_unit_variance_and_varies_slowly():
    noise = smooth_noise(np.random.default_rng(0), (40, 60, 50), (1, 5, 8))
    assert noise.std() == pytest.approx(1, abs=0.1)
    steps = [np.abs(np.diff(noise, axis=axis)).mean() for axis in range(3)]
    assert steps[0] > 3 * steps[1] > 3 * steps[2]
