"""``emslice cut`` and ``emslice sweep``, as a user types them."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml
from service.runs import store_affinities

import emslice
from emslice.volumes import create_volume, open_volume

SHAPE = (6, 40, 57)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Affinities of all scores, and where the run is made that every test has a copy of."""
    folder = tmp_path_factory.mktemp("first")
    store_affinities(folder, shape=SHAPE)
    return folder


@pytest.fixture
def made(run, first, tmp_path):
    """The folder of a run in blocks at 0.5; truth.zarr lies beside it."""
    if not (first / "run").exists():
        answer = run("segment", "--from-affinities", first / "aff.zarr", first / "run",
                     "--workers", "1", "--block", "3,23,29")  # fmt: skip
        assert answer.code == 0, answer.err
    shutil.copytree(first / "run", tmp_path / "run", symlinks=True)
    truth = np.random.default_rng(9).integers(0, 9, SHAPE).astype(np.uint8)
    volume = create_volume(tmp_path / "truth.zarr", shape=truth.shape, dtype=truth.dtype)
    volume.write(volume.roi, truth)
    return tmp_path / "run"


def digest_of(run, volume):
    return run("digest", volume).out.splitlines()[-1]


def test_a_cut_is_the_run_at_that_threshold_in_place_and_elsewhere(run, first, made, tmp_path):
    run("segment", "--from-affinities", first / "aff.zarr", tmp_path / "straight",
        "--workers", "1", "--threshold", "0.9")  # fmt: skip
    expected = digest_of(run, tmp_path / "straight/segmentation.zarr")
    before = (made / "run.yaml").read_bytes()
    answer = run("cut", made, "--threshold", "0.9", "--out", tmp_path / "cut.zarr", "--json")
    assert answer.code == 0, answer.err
    said = json.loads(answer.out.splitlines()[-1])
    assert (said["digest"], said["threshold"]) == (expected, 0.9)
    assert digest_of(run, tmp_path / "cut.zarr") == expected
    assert (made / "run.yaml").read_bytes() == before
    assert digest_of(run, made / "segmentation.zarr") != expected
    answer = run("cut", made, "--threshold", "0.9")
    assert answer.code == 0, answer.err
    assert expected in answer.out
    assert digest_of(run, made / "segmentation.zarr") == expected
    assert yaml.safe_load((made / "run.yaml").read_text())["state"] == "done"


def test_a_cut_may_have_other_dust(run, first, made, tmp_path):
    out = tmp_path / "cut.zarr"
    answer = run("cut", made, "--threshold", "1", "--min-size", "5000", "--out", out, "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out.splitlines()[-1])["segments"] == 0
    answer = run("cut", made, "--threshold", "1", "--min-size", "5000")
    assert (answer.code, "every segment was dust" in answer.err) == (0, True)
    answer = run("cut", made, "--threshold", "1", "--min-size", "0")
    affinities = open_volume(first / "aff.zarr")
    whole = emslice.segment_affinities(affinities.read(affinities.roi), 1, min_size=0)
    segments = yaml.safe_load((made / "run.yaml").read_text())["counts"]["segments"]
    assert segments == len(np.unique(whole[whole > 0])) > 6
    assert run("cut", made, "--threshold", "1", "--min-size", "-1").code == 2


REFUSED = {
    "below the lowest": (["--threshold", "0.2"], ["0.2", "0.3", "agglomeration.lowest_threshold"]),
    "above one": (["--threshold", "1.01"], ["agglomeration.threshold", "not within 0 to 1"]),
    "a place that is taken": (["--threshold", "0.6", "--out", "truth.zarr"], ["exists already"]),
    "no threshold": ([], ["--threshold"]),
}


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_cut_that_cannot_be_made_is_refused(run, made, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    before = {path for path in tmp_path.rglob("*") if "ledger" not in path.name}
    answer = run("cut", "run", *options)
    assert answer.code == 2
    assert all(word in answer.err for word in words)
    assert {path for path in tmp_path.rglob("*") if "ledger" not in path.name} == before


@pytest.mark.parametrize(
    "command", [("cut", "nothing", "--threshold", "0.5"), ("sweep", "nothing", "--truth", "t")]
)
def test_a_folder_without_a_run_is_refused(run, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    answer = run(*command)
    assert answer.code == 2
    assert "nothing" in answer.err
    assert not list(tmp_path.iterdir())


def test_a_sweep_says_what_evaluate_says_and_where_the_best_is(run, made, tmp_path):
    answer = run("sweep", made, "--truth", tmp_path / "truth.zarr", "--json", "--ignore", "3")
    assert answer.code == 0, answer.err
    said = json.loads(answer.out)
    assert len(said["rows"]) == 50
    (row,) = [row for row in said["rows"] if row["threshold"] == 0.5]
    # Of the segments as they are before dust is cleared.
    assert run("cut", made, "--threshold", "0.5", "--min-size", "0").code == 0
    scores = run("evaluate", made / "segmentation.zarr", tmp_path / "truth.zarr", "--json",
                 "--ignore", "3")  # fmt: skip
    for name, value in json.loads(scores.out).items():
        assert row[name] == pytest.approx(value, abs=1e-9)
    record = yaml.safe_load((made / "run.yaml").read_text())
    assert row["segments"] == record["counts"]["segments"]
    assert said["best"] in said["rows"]


def test_a_sweep_prints_a_table_and_leaves_one_with_a_picture(run, made, tmp_path):
    answer = run("sweep", made, "--truth", tmp_path / "truth.zarr", "--roi", "1:5,:,7:")
    assert answer.code == 0, answer.err
    assert "best" in answer.out
    assert "1:5,0:40,7:57" in answer.out
    with (made / "sweep.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 50
    assert (made / "sweep.png").stat().st_size > 10_000


def test_a_truth_of_floats_is_refused_and_nothing_is_written(run, made, tmp_path):
    volume = create_volume(tmp_path / "f.zarr", shape=(6, 40, 57), dtype=np.float32)
    answer = run("sweep", made, "--truth", volume.url)
    assert answer.code == 2
    assert "TRUTH" in answer.err
    assert not list(made.glob("sweep*"))
