"""``--mask``: as if the affinities were 0 there, and checked before any work."""

import numpy as np
import pytest
import yaml

import emslice
from emslice.volumes import create_volume, open_volume
from emslice.volumes.digest import digest_array

SHAPE = (6, 40, 57)


def store(path, array, **facts):
    channels = array.shape[0] if array.ndim == 4 else None
    shape = array.shape[-3:]
    volume = create_volume(path, shape=shape, dtype=array.dtype, channels=channels, **facts)
    volume.write(volume.roi, array)
    return volume


def random_mask(seed=2):
    """Keeps 8 of 10 voxels, and nothing of a corner larger than a block."""
    mask = np.random.default_rng(seed).random(SHAPE) < 0.8
    mask[:, 10:, :30] = False
    return mask


@pytest.fixture
def affinities(tmp_path):
    codes = np.random.default_rng(7).choice(np.array([0, 90, 140, 255], np.uint8), (3, *SHAPE))
    return store(tmp_path / "affinities.zarr", codes, resolution_nm=(40, 4, 4))


def record(folder):
    return yaml.safe_load((folder / "run.yaml").read_text())


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint64])
def test_a_run_with_a_mask_is_the_run_of_affinities_with_zeros(run, affinities, tmp_path, dtype):
    mask = random_mask()
    url = store(tmp_path / "mask.zarr", mask.astype(dtype) * dtype(3)).url
    answer = run("segment", "--from-affinities", affinities.url, tmp_path / "run", "--mask", url,
                 "--block", "3,14,20", "--workers", "1", "--set", "fragments.radius=5")  # fmt: skip
    assert answer.code == 0, answer.err
    codes = affinities.read(affinities.roi)
    codes[:, ~mask] = 0
    expected = emslice.segment_affinities(codes, radius=5)
    assert not expected[~mask].any()
    found = record(tmp_path / "run")
    assert found["digests"]["segmentation"] == digest_array(expected)
    assert found["config"]["mask"] == url
    assert found["counts"]["masked_voxels"] == (expected == 0).sum()


@pytest.mark.parametrize("block", ["6,40,57", "2,11,23"])
def test_so_is_one_with_fragments_in_three_dimensions(run, affinities, tmp_path, block):
    mask = random_mask()
    url = store(tmp_path / "mask.zarr", mask, resolution_nm=(40, 4, 4)).url
    answer = run("segment", "--from-affinities", affinities.url, tmp_path / "run", "--mask", url,
                 "--block", block, "--workers", "1", "--set", "fragments.dimensions=3",
                 "--set", "fragments.radius=3")  # fmt: skip
    assert answer.code == 0, answer.err
    assert "isotropic" in answer.err
    codes = affinities.read(affinities.roi) * mask
    expected = emslice.segment_affinities(codes, dimensions=3, radius=3)
    assert record(tmp_path / "run")["digests"]["segmentation"] == digest_array(expected)


def test_kept_affinities_are_those_without_the_mask(run, raw, small_checkpoint, tmp_path):
    mask = random_mask()
    url = store(tmp_path / "mask.zarr", mask).url
    answer = run("segment", raw.url, tmp_path / "run", "--checkpoint", small_checkpoint, "--mask",
                 url, "--affinities", "keep", "--workers", "2", "--block", "3,20,30")  # fmt: skip
    assert answer.code == 0, answer.err
    predicted = emslice.predict_affinities(raw.read(raw.roi), small_checkpoint)
    kept = open_volume(tmp_path / "run/affinities.zarr")
    np.testing.assert_array_equal(kept.read(kept.roi), predicted)
    expected = emslice.segment_affinities(predicted * mask)
    assert record(tmp_path / "run")["digests"]["segmentation"] == digest_array(expected)


def test_another_mask_changes_nothing_before_fragments_and_no_mask_is_as_before(
    run, raw, small_checkpoint, tmp_path
):
    url = store(tmp_path / "mask.zarr", random_mask()).url
    folder = tmp_path / "run"
    common = ("--workers", "1")
    run("segment", raw.url, folder, "--checkpoint", small_checkpoint, "--affinities", "keep",
        *common)  # fmt: skip
    before = record(folder)
    assert run("resume", folder, "--mask", url, *common).code == 0
    masked = record(folder)
    assert run("resume", folder, "--set", "mask=null", *common).code == 0
    changed = {
        stage for stage, facts in before["stages"].items()
        if facts.get("fingerprint") != masked["stages"][stage].get("fingerprint")
    }  # fmt: skip
    assert changed == {"fragments", "stitch", "agglomerate", "cut", "dust", "relabel"}
    assert before["digests"]["segmentation"] != masked["digests"]["segmentation"]
    assert record(folder)["digests"] == before["digests"]


@pytest.mark.parametrize(
    ("array", "facts", "words"),
    [
        (np.ones((6, 40, 56), bool), {}, ["(6, 40, 56)", "(6, 40, 57)"]),
        (np.ones(SHAPE, bool), {"resolution_nm": (40, 8, 8)}, ["40 x 8 x 8", "40 x 4 x 4"]),
        (np.ones(SHAPE, np.float32), {}, ["float32"]),
        (np.ones((2, *SHAPE), np.uint8), {}, ["2 channels"]),
        (np.ones((4, 40, 57), bool), {"domain_shape": SHAPE}, ["0:4,0:40,0:57", "0:6,0:40,0:57"]),
    ],
    ids=["shape", "resolution", "floats", "channels", "a crop"],
)
@pytest.mark.parametrize("start", ["raw", "affinities"])
def test_a_mask_that_does_not_fit_is_refused(
    run, raw, affinities, small_checkpoint, tmp_path, start, array, facts, words
):
    url = store(tmp_path / "mask.zarr", array, **facts).url
    source = {
        "raw": (raw.url, tmp_path / "run", "--checkpoint", small_checkpoint),
        "affinities": ("--from-affinities", affinities.url, tmp_path / "run"),
    }[start]
    answer = run("segment", *source, "--mask", url)
    assert answer.code == 2, answer
    for word in ["mask", *words]:
        assert word in answer.err
    assert not (tmp_path / "run").exists()


def test_a_missing_mask_is_refused(run, affinities, tmp_path):
    answer = run("segment", "--from-affinities", affinities.url, tmp_path / "run", "--mask",
                 tmp_path / "absent.zarr")  # fmt: skip
    assert answer.code == 2
    assert "absent.zarr" in answer.err


def test_a_crop_of_a_mask_serves_a_box_inside_it(run, affinities, tmp_path):
    url = store(tmp_path / "mask.zarr", np.ones((4, 40, 57), bool), domain_shape=SHAPE).url
    answer = run("segment", "--from-affinities", affinities.url, tmp_path / "run", "--mask", url,
                 "--roi", "1:4,:,:", "--workers", "1")  # fmt: skip
    assert answer.code == 0, answer.err
