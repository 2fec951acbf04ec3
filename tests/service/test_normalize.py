"""``raw.normalize``: one grey value for each voxel, whatever the blocks, box and workers."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from service.runs import Silent, failing

import emslice
from emslice.config.load import load_config
from emslice.errors import ConfigError
from emslice.ops.lookup import GreyLevel
from emslice.service.again import plan_again, release_failed
from emslice.service.plan import plan_from_raw
from emslice.service.segment import RunFailedError, segment
from emslice.service.stages import stages_of
from emslice.stages import measuring
from emslice.stages.measuring import MeasureIntensity
from emslice.volumes import create_volume, open_volume
from emslice.volumes.digest import digest_array

SHAPE = (35, 90, 75)
MODES = {
    "affine": {"normalize": "affine", "target": (140, 50)},
    "volume": {"normalize": "affine", "target": (140, 50), "statistics": "volume"},
    "match": {"normalize": "match"},
    "target": {"normalize": "match", "target": (140, 50)},
    "clahe": {"normalize": "clahe", "clahe": {"cell": 16, "clip": 2.5}},
}


@pytest.fixture(scope="module")
def raw():
    """Sections of different brightness, a corner that was never imaged, a blank section."""
    rng = np.random.default_rng(1)
    array = rng.normal(0, 30, SHAPE) + rng.integers(80, 170, SHAPE[0])[:, None, None]
    array = np.clip(array + np.linspace(0, 20, SHAPE[2]), 1, 255).astype(np.uint8)
    array[:, 50:, :20], array[20] = 0, 0
    return array


@pytest.fixture(scope="module")
def url(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    volume = create_volume(folder / "raw.zarr", shape=SHAPE, dtype="uint8", chunk_shape=(8, 30, 30))
    volume.write(volume.roi, raw)
    return volume.url


@pytest.fixture(scope="module")
def codes(raw, small_checkpoint):
    """Function that gives the codes of ``raw`` in a mode by the Python API, made once each."""

    @cache
    def predicted(mode=None):
        return emslice.predict_affinities(raw, small_checkpoint, **MODES.get(mode, {}))

    return predicted


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Sections of several parts, read a few at a time."""
    monkeypatch.setattr(measuring, "PIECE", 40)
    monkeypatch.setattr(measuring, "SLICE_BYTES", 3 * 40 * 40)


def plan_of(url, folder, checkpoint, mode, **more):
    options = {f"raw.{name}": value for name, value in MODES[mode].items()}
    options |= {"checkpoint": str(checkpoint), "affinities": "keep", "workers": 1}
    return plan_from_raw(url, folder, load_config(options={**options, **more}))


def codes_of(folder):
    volume = open_volume(Path(folder) / "affinities.zarr")
    return volume.read(volume.roi)


def record_of(folder):
    return yaml.safe_load((Path(folder) / "run.yaml").read_text())


@pytest.mark.parametrize("mode", MODES)
def test_a_run_in_blocks_has_the_codes_of_the_python_api(
    raw, codes, url, small_checkpoint, tmp_path, mode
):
    segment(plan_of(url, tmp_path / "run", small_checkpoint, mode, block=(18, 90, 40)), Silent())
    expected = codes(mode)
    np.testing.assert_array_equal(codes_of(tmp_path / "run"), expected)
    assert not expected[:, raw == 0].any()
    plain = codes()
    assert (plain != expected).any()


def test_raw_is_measured_before_affinities_are_handed_over(codes, url, small_checkpoint, tmp_path):
    tile = 3 * 16 * 90 * 75
    more = {"affinities": "drop", "handover.memory": str(tile), "block": (13, 41, 75)}
    plan = plan_of(url, tmp_path / "run", small_checkpoint, "match", **more)
    assert [stage.name for stage in stages_of(plan).to_run()[:2]] == [
        "intensity",
        "predict+fragments",
    ]
    record = segment(plan, Silent())
    whole = emslice.segment_affinities(codes("match"))
    assert record.digests["segmentation"] == digest_array(whole)


@pytest.mark.parametrize("mode", MODES)
def test_a_box_has_the_codes_that_the_whole_volume_has_there(
    codes, url, small_checkpoint, tmp_path, mode
):
    """Statistics are of the whole domain, or of whole cells, whatever the ROI."""
    segment(
        plan_of(url, tmp_path / "run", small_checkpoint, mode, roi="17:33,8:61,20:75"), Silent()
    )
    whole = codes(mode)
    np.testing.assert_array_equal(codes_of(tmp_path / "run"), whole[:, 17:33, 8:61, 20:75])


@pytest.mark.parametrize("mode", ["volume", "clahe"])
def test_so_have_tiles_that_are_smaller_than_the_section(small_checkpoint, tmp_path, mode):
    """512 voxels and a halo: cells are read around the tiles that meet the box, and no others."""
    shape = (3, 20, 1210)
    array = np.random.default_rng(3).integers(0, 200, shape).astype(np.uint8)
    volume = create_volume(tmp_path / "wide.zarr", shape=shape, dtype="uint8")
    volume.write(volume.roi, array)
    more = {"roi": "1:3,:,700:720", "predict.tile": 512}
    plan = plan_of(volume.url, tmp_path / "run", small_checkpoint, mode, **more)
    segment(plan, Silent())
    whole = emslice.predict_affinities(array, small_checkpoint, tile=512, **MODES[mode])
    np.testing.assert_array_equal(codes_of(tmp_path / "run"), whole[:, 1:3, :, 700:720])
    measured = plan.measurement.box
    assert measured.shape[2] == shape[2] if mode == "volume" else measured.shape[2] < 800


def test_several_workers_change_no_code(codes, url, small_checkpoint, tmp_path, monkeypatch):
    monkeypatch.undo()  # processes of their own would cut other parts
    segment(plan_of(url, tmp_path / "run", small_checkpoint, "match", workers=2), Silent())
    expected = codes("match")
    np.testing.assert_array_equal(codes_of(tmp_path / "run"), expected)


@pytest.mark.parametrize(("mode", "key"), [("target", "sections/1"), ("clahe", "parts/1_1_0")])
def test_statistics_that_fail_stop_the_run_and_it_resumes(
    codes, url, small_checkpoint, tmp_path, mode, key
):
    folder = tmp_path / "run"
    plan = plan_of(url, folder, small_checkpoint, mode)
    reason = f"'intensity' failed.*{key}"
    with failing(MeasureIntensity, {key}), pytest.raises(RunFailedError, match=reason):
        segment(plan, Silent())
    assert record_of(folder)["state"] == "failed"
    assert "predict" not in record_of(folder)["stages"]
    assert [task for _, task in release_failed(folder)] == [key]
    segment(plan_again(folder), Silent())
    expected = codes(mode)
    np.testing.assert_array_equal(codes_of(folder), expected)
    assert record_of(folder)["stages"]["intensity"]["done_before"] > 0


def test_the_record_says_what_was_measured(raw, url, small_checkpoint, tmp_path):
    segment(plan_of(url, tmp_path / "run", small_checkpoint, "volume"), Silent())
    said = record_of(tmp_path / "run")["intensity"]
    assert said["normalize"] == "affine"
    assert said["statistics"] == "volume"
    assert said["target"] == [140, 50]
    shown, means = raw[raw > 0], [section[section > 0].mean() for section in raw if section.any()]
    assert said["measured"] == {
        "roi": "0:35,0:90,0:75",
        "voxels": shown.size,
        "mean": pytest.approx(shown.mean(), abs=0.005),
        "std": pytest.approx(shown.std(), abs=0.005),
        "means_of_sections": pytest.approx([min(means), max(means)], abs=0.005),
    }


def test_other_targets_measure_nothing_again_and_no_mode_leaves_fingerprints_as_they_were(
    url, small_checkpoint, tmp_path
):
    def prints(mode, **more):
        return plan_of(url, tmp_path / "x", small_checkpoint, mode, **more).fingerprints

    one, other = prints("affine"), prints("affine", **{"raw.target": (120, 50)})
    assert one["intensity"] == other["intensity"]
    assert one["predict"] != other["predict"]
    assert len({prints(mode)["predict"] for mode in MODES}) == len(MODES)
    none = prints("affine", **{"raw.normalize": "none"})
    assert "intensity" not in none
    assert none["predict"] == prints("clahe", **{"raw.normalize": "none"})["predict"]


def test_sixteen_bits_are_counted_through_their_window(raw, small_checkpoint):
    deep = raw.astype(np.uint16) * 3 + (raw > 0)
    shown = {"window": (0, 767), "normalize": "affine", "target": (128, 40)}
    codes = emslice.predict_affinities(deep, small_checkpoint, **shown)
    assert codes[:, raw > 0].any()
    assert not codes[:, raw == 0].any()


def test_affine_needs_to_know_where_to(raw, small_checkpoint):
    with pytest.raises(ConfigError, match=r"small does not state them.*raw\.target=\[128,45\]"):
        emslice.predict_affinities(raw, small_checkpoint, normalize="affine")
    with pytest.raises(ConfigError, match=r"raw\.normalize"):
        emslice.predict_affinities(raw, small_checkpoint, normalize="gamma")


def test_a_checkpoint_that_states_its_training_is_the_target(
    raw, codes, small_checkpoint, tmp_path
):
    from emslice.models.checkpoint import load_checkpoint, save_checkpoint

    path = tmp_path / "stated.ckpt"
    network = load_checkpoint(small_checkpoint).network
    save_checkpoint(path, network, (40, 4, 4), {}, intensity=GreyLevel(140, 50))
    np.testing.assert_array_equal(
        emslice.predict_affinities(raw, path, normalize="affine"),
        codes("affine"),
    )
