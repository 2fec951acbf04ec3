"""``--normalize``: refused before any work where it cannot work, and recorded where it did."""

import numpy as np
import pytest
import yaml

import emslice
from emslice.volumes import create_volume
from emslice.volumes.digest import digest_array


def record(folder):
    return yaml.safe_load((folder / "run.yaml").read_text())


def test_a_run_with_match_is_that_of_the_python_api_and_says_so(
    run, raw, small_checkpoint, tmp_path
):
    answer = run("segment", raw.url, tmp_path / "run", "--checkpoint", small_checkpoint,
                 "--normalize", "match", "--workers", "1", "--block", "4,30,30")  # fmt: skip
    assert answer.code == 0, answer.err
    codes = emslice.predict_affinities(raw.read(raw.roi), small_checkpoint, normalize="match")
    found = record(tmp_path / "run")
    assert found["digests"]["segmentation"] == digest_array(emslice.segment_affinities(codes))
    assert found["intensity"]["normalize"] == "match"
    assert found["intensity"]["measured"]["voxels"] == raw.read(raw.roi).size
    assert next(iter(found["stages"])) == "intensity"


def test_resumed_without_it_a_run_is_as_if_it_never_had_it(run, raw, small_checkpoint, tmp_path):
    common = ("--checkpoint", small_checkpoint, "--workers", "1")
    run("segment", raw.url, tmp_path / "plain", *common)
    run("segment", raw.url, tmp_path / "run", *common, "--normalize", "clahe")
    one, other = (record(tmp_path / name)["stages"]["predict"] for name in ("run", "plain"))
    assert one["fingerprint"] != other["fingerprint"]
    run("resume", tmp_path / "run", "--set", "raw.normalize=none", "--workers", "1")
    found = record(tmp_path / "run")
    assert found["digests"] == record(tmp_path / "plain")["digests"]
    assert found["intensity"] == {"normalize": "none"}


def test_a_run_from_before_there_was_a_choice_goes_on_as_it_was(
    run, raw, small_checkpoint, tmp_path
):
    folder = tmp_path / "run"
    run("segment", raw.url, folder, "--checkpoint", small_checkpoint, "--workers", "1")
    old = record(folder)
    old["config"]["raw"] = {"window": None}
    (folder / "run.yaml").write_text(yaml.safe_dump(old))
    assert run("resume", folder, "--workers", "1").code == 0
    found = record(folder)
    assert found["config"]["raw"]["normalize"] == "none"
    assert found["stages"]["predict"]["fingerprint"] == old["stages"]["predict"]["fingerprint"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--normalize", "affine"), ["does not state them", "--set raw.target=[128,45]"]),
        (("--normalize", "gamma"), ["raw.normalize", "'clahe'", "gamma"]),
        (("--set", "raw.target=[300,5]"), ["raw.target", "255"]),
        (("--set", "raw.target=[100,0]"), ["raw.target", "greater than 0"]),
        (("--set", "raw.clahe.cell=4"), ["raw.clahe.cell", "16"]),
        (("--set", "raw.clahe.clip=0.5"), ["raw.clahe.clip", "1"]),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    run, raw, small_checkpoint, tmp_path, options, words
):
    answer = run("segment", raw.url, tmp_path / "run", "--checkpoint", small_checkpoint, *options)
    assert answer.code == 2
    for word in words:
        assert word in answer.err
    assert not (tmp_path / "run").exists()


def test_stored_affinities_have_no_raw_to_normalise(run, tmp_path):
    codes = np.full((3, 2, 9, 8), 200, np.uint8)
    volume = create_volume(tmp_path / "aff.zarr", shape=(2, 9, 8), dtype=np.uint8, channels=3)
    volume.write(volume.roi, codes)
    answer = run("segment", "--from-affinities", volume.url, tmp_path / "run", "--normalize",
                 "match")  # fmt: skip
    assert answer.code == 2
    assert "nothing is predicted" in answer.err


def test_raw_that_is_all_blank_stays_so(run, small_checkpoint, tmp_path):
    volume = create_volume(tmp_path / "blank.zarr", shape=(3, 40, 50), dtype=np.uint8)
    for mode in ("match", "clahe"):
        answer = run("segment", volume.url, tmp_path / mode, "--checkpoint", small_checkpoint,
                     "--normalize", mode, "--workers", "1")  # fmt: skip
        assert answer.code == 0, answer.err
        assert "everything is masked" in answer.err
        assert record(tmp_path / mode)["intensity"]["measured"]["voxels"] == 0
