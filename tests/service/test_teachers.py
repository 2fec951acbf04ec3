"""From raw to segments by 3D networks: blocks, boxes and workers change nothing."""

from dataclasses import replace

import numpy as np
import pytest
from models.teachers import SMALL
from service.runs import Silent, write

import emslice
from emslice.config.load import load_config
from emslice.errors import ConfigError, UnfitWorkerError
from emslice.ledger.database import Ledger
from emslice.models.checkpoint import save_checkpoint
from emslice.service.plan import plan_from_raw
from emslice.service.segment import segment
from emslice.service.stages import stages_of
from emslice.volumes import open_volume

SHAPE = (13, 50, 67)
SIZES = {"predict.crop": [5, 32, 48], "predict.stride": [3, 16, 24]}


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(2).integers(1, 256, SHAPE).astype(np.uint8)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.ckpt"
    save_checkpoint(path, SMALL["embedding"](), (40, 4, 4), {})
    return path


@pytest.fixture
def plan_of(tmp_path, raw, teacher):
    """Function that plans a run of the teacher."""
    url = write(tmp_path / "raw.zarr", raw)

    def plan(name, **options):
        defaults = {"checkpoint": str(teacher), "workers": 1, "dust.min_size": 3, **SIZES}
        return plan_from_raw(url, tmp_path / name, load_config(options=defaults | options))

    return plan


def labels_of(plan):
    segment(plan, Silent())
    volume = open_volume(plan.folder / "segmentation.zarr")
    return volume.read(volume.roi)


def test_blocks_and_workers_change_no_segment(plan_of, raw, teacher):
    affinities = emslice.predict_affinities(
        raw, teacher, crop=SIZES["predict.crop"], stride=SIZES["predict.stride"]
    )
    expected = emslice.segment_affinities(affinities, min_size=3)
    assert len(np.unique(expected)) > 10
    for name, options in {
        "whole": {},
        "blocks": {"block": [5, 17, 23], "fragments.radius": 64},
        "workers": {"block": [4, 50, 30], "workers": 2, "affinities": "keep"},
    }.items():
        np.testing.assert_array_equal(labels_of(plan_of(name, **options)), expected, name)


GREY = {
    "as it is": {},
    "affine": {"normalize": "affine", "target": (140, 50)},
    "clahe": {"normalize": "clahe", "clahe": {"cell": 16, "clip": 2.5}},
}


def test_poses_in_a_run_are_those_of_the_python_api(plan_of, raw, teacher):
    sizes = {"crop": SIZES["predict.crop"], "stride": SIZES["predict.stride"]}
    whole = emslice.predict_affinities(raw, teacher, **sizes, augment="flips")
    options = {"predict.augment": "flips", "roi": "5:9,21:40,5:42", "block": [3, 20, 30]}
    plan = plan_of("posed", affinities="keep", **options)
    assert plan.fingerprints["predict"] != plan_of("upright").fingerprints["predict"]
    segment(plan, Silent())
    kept = open_volume(plan.folder / "affinities.zarr")
    np.testing.assert_array_equal(kept.read(kept.roi), whole[:, 5:9, 21:40, 5:42])


@pytest.mark.parametrize("grey", GREY)
def test_kept_affinities_of_a_box_are_those_of_the_whole(plan_of, raw, teacher, grey):
    """Also where raw is measured first: a window sees further than a pair of sections."""
    sizes = {"crop": SIZES["predict.crop"], "stride": SIZES["predict.stride"]}
    whole = emslice.predict_affinities(raw, teacher, **sizes, **GREY[grey])
    options = {f"raw.{name}": value for name, value in GREY[grey].items()}
    plan = plan_of("box", roi="5:9,21:40,5:42", affinities="keep", block=[3, 20, 30], **options)
    segment(plan, Silent())
    kept = open_volume(plan.folder / "affinities.zarr")
    np.testing.assert_array_equal(kept.read(kept.roi), whole[:, 5:9, 21:40, 5:42])


def test_crop_and_stride_are_part_of_a_prediction_and_of_nothing_else(plan_of):
    one, other = plan_of("one"), plan_of("other", **{"predict.stride": [3, 16, 20]})
    assert one.fingerprints["predict"] != other.fingerprints["predict"]
    published = plan_of("published", **{"predict.crop": None, "predict.stride": None})
    spelled = plan_of("spelled", **{"predict.crop": [18, 160, 160], "predict.stride": [10, 80, 80]})
    assert published.fingerprints == spelled.fingerprints


def test_a_crop_that_the_network_cannot_take_is_refused_before_any_work(plan_of, tmp_path):
    with pytest.raises(ConfigError, match=r"predict\.crop.*multiples of 16"):
        plan_of("run", **{"predict.crop": [5, 30, 48]})
    assert not (tmp_path / "run").exists()


def test_the_plan_counts_the_memory_of_the_network(plan_of):
    small = stages_of(plan_of("small")).predict.peak_bytes
    large = stages_of(plan_of("large", **{"predict.crop": [18, 160, 160]})).predict.peak_bytes
    assert large - small > 100 * (18 * 160 * 160 - 5 * 32 * 48)


def test_a_worker_of_another_profile_stops_the_run_and_no_tile_is_left_out(plan_of):
    plan = plan_of("run")
    other = replace(plan.prediction.profile, torch="1.0.1")
    plan = replace(plan, prediction=replace(plan.prediction, profile=other))
    with pytest.raises(UnfitWorkerError, match=r"torch: the run has '1\.0\.1', this worker"):
        segment(plan, Silent())
    with Ledger(plan.folder / "ledger.sqlite", create=False) as ledger:
        assert not ledger.reasons(plan.fingerprints["predict"])
