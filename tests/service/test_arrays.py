"""The Python API: shapes, masks, refusals, and no dependence on workers or boxes."""

import h5py
import numpy as np
import pytest
import torch

import emslice
from emslice.errors import CheckpointError, ConfigError
from emslice.geometry.boxes import Roi
from emslice.geometry.lattice import TileLattice
from emslice.models.checkpoint import load_checkpoint
from emslice.models.pairs import PairPredictor
from emslice.models.profile import bfloat16_unit, resolve_profile
from emslice.ops.linkage import LINKAGES
from emslice.stages.predict import predict
from emslice.volumes import ArrayVolume

needs_bfloat16 = pytest.mark.skipif(bfloat16_unit() is None, reason="no bfloat16 here")
PRECISIONS = ["float32", pytest.param("bfloat16", marks=needs_bfloat16)]


def raw_volume(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(1, 256, shape).astype(np.uint8)


def predictor_for(shape, checkpoint, core=1024, precision="auto"):
    lattice = TileLattice((shape[1], shape[2]), core)
    profile = resolve_profile(tile=core, precision=precision)
    return PairPredictor(load_checkpoint(checkpoint).network, lattice, profile)


@pytest.mark.parametrize("shape", [(3, 40, 57), (1, 17, 33), (2, 1, 5), (19, 16, 16)])
def test_affinities_have_three_channels_and_the_shape_of_raw(shape, small_checkpoint):
    affinities = emslice.predict_affinities(raw_volume(shape), small_checkpoint)
    assert affinities.shape == (3, *shape)
    assert affinities.dtype == np.uint8


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_number_of_workers_changes_no_code(small_checkpoint, precision):
    raw = raw_volume((35, 70, 90))
    one, three = (
        emslice.predict_affinities(raw, small_checkpoint, workers=n, precision=precision)
        for n in (1, 3)
    )
    np.testing.assert_array_equal(one, three)


def test_torch_threads_are_left_as_they_were(small_checkpoint):
    before = torch.get_num_threads()
    emslice.predict_affinities(raw_volume((2, 20, 30)), small_checkpoint, threads=1)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "box", [((0, 0, 0), (5, 300, 200)), ((3, 100, 50), (4, 60, 70)), ((4, 0, 199), (1, 300, 1))]
)
def test_a_box_has_the_codes_that_the_whole_volume_has_there(box, small_checkpoint, precision):
    raw = raw_volume((9, 300, 200))
    volume = ArrayVolume(raw)
    predictor = predictor_for(raw.shape, small_checkpoint, 128, precision)
    roi = Roi(*box)
    whole = predict(volume, predictor, volume.roi)
    np.testing.assert_array_equal(predict(volume, predictor, roi).array, whole.read(roi))


def tiles_against_whole(raw, checkpoint, precision):
    """By how many codes tiles of 64 differ from whole sections."""
    tiled, whole = (
        predict(
            ArrayVolume(raw),
            predictor_for(raw.shape, checkpoint, core, precision),
            Roi((0, 0, 0), raw.shape),
        ).array
        for core in (64, 1024)
    )
    return np.abs(tiled.astype(int) - whole)


def test_tiles_agree_with_whole_sections_within_one_code(small_checkpoint):
    raw = raw_volume((3, 330, 250))
    assert tiles_against_whole(raw, small_checkpoint, "float32").max() <= 1


@needs_bfloat16
def test_tiles_of_bfloat16_agree_with_whole_sections_of_real_em(data_dir):
    """Stated in docs/design/0012-precision.md: 99.5 % within 1, none further than 32."""
    with h5py.File(data_dir / "ac4_crop.h5") as file:
        raw = file["raw"][:2, :330, :250]
    checkpoint = data_dir / "checkpoints" / "cad_AC34.ckpt"
    apart = tiles_against_whole(raw, checkpoint, "bfloat16")
    assert (apart <= 1).mean() >= 0.995
    assert apart.max() <= 32


def test_blank_raw_has_no_affinities_and_no_segment(small_checkpoint):
    raw = raw_volume((4, 60, 70))
    raw[:, :, 40:] = 0
    raw[2] = 0
    affinities = emslice.predict_affinities(raw, small_checkpoint)
    blank = raw == 0
    assert not affinities[:, blank].any()
    segmentation = emslice.segment_affinities(affinities)
    assert not segmentation[blank].any()
    assert segmentation[~blank].any()


def test_sixteen_bits_need_a_window(small_checkpoint):
    raw = raw_volume((2, 20, 30)).astype(np.uint16) * 257
    with pytest.raises(ConfigError, match=r"raw\.window"):
        emslice.predict_affinities(raw, small_checkpoint)
    shown = emslice.predict_affinities(raw, small_checkpoint, window=(0, 65535))
    np.testing.assert_array_equal(
        shown, emslice.predict_affinities((raw // 257).astype(np.uint8), small_checkpoint)
    )


@pytest.mark.parametrize(
    "raw", [np.ones((4, 5)), np.ones((2, 4, 5), np.float32), np.ones((0, 4, 5))]
)
def test_raw_of_another_kind_is_refused(raw, small_checkpoint):
    with pytest.raises(ConfigError, match="raw"):
        emslice.predict_affinities(raw, small_checkpoint)


def test_a_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        emslice.predict_affinities(raw_volume((2, 20, 30)), tmp_path / "absent.ckpt")


def test_floats_and_their_codes_give_the_same_segments():
    rng = np.random.default_rng(1)
    affinities = rng.random((3, 4, 17, 23), np.float32)
    codes = np.minimum(np.floor(affinities * 256), 255).astype(np.uint8)
    np.testing.assert_array_equal(
        emslice.segment_affinities(affinities, min_size=5),
        emslice.segment_affinities(codes, min_size=5),
    )


def test_a_lower_threshold_only_joins_segments():
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 256, (3, 4, 17, 23)).astype(np.uint8)
    fine, coarse = (emslice.segment_affinities(codes, t, min_size=0) for t in (0.9, 0.6))
    assert len(np.unique(fine)) > len(np.unique(coarse))
    for segment in np.unique(fine)[1:]:
        assert len(np.unique(coarse[fine == segment])) == 1


@pytest.mark.parametrize("linkage", LINKAGES)
def test_saturated_affinities_make_one_segment_named_one(linkage):
    codes = np.full((3, 3, 5, 7), 255, np.uint8)
    segmentation = emslice.segment_affinities(codes, linkage=linkage)
    # ids are smallest fragments: the root of section 0 is its last voxel, by index
    assert set(np.unique(segmentation)) == {35}


def test_fragments_in_three_dimensions_are_named_by_the_last_voxel_of_all():
    codes = np.full((3, 3, 5, 7), 255, np.uint8)
    assert set(np.unique(emslice.segment_affinities(codes, dimensions=3))) == {105}


def test_all_zero_affinities_are_all_masked():
    assert not emslice.segment_affinities(np.zeros((3, 3, 5, 7), np.uint8)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"linkage": "median"}, "known: mean, quantile_max, quantile"),
        ({"quantile": 100}, "quantile"),
        ({"lowest_threshold": 0.8}, "below the lowest"),
        ({"radius": 0}, "radius"),
        ({"dimensions": 4}, "fragments.dimensions: 4"),
        ({"min_size": -1}, r"dust\.min_size"),
        ({"alone": "hide"}, r"dust\.alone"),
    ],
)
def test_a_parameter_out_of_range_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        emslice.segment_affinities(np.ones((3, 2, 3, 4), np.uint8), **arguments)


def test_affinities_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match=r"\(3, Z, Y, X\).*\(2, 4, 5, 6\)"):
        emslice.segment_affinities(np.ones((2, 4, 5, 6), np.uint8))
