"""``emslice evaluate`` of checkpoints on a test set, as a user types it."""

import json

import h5py
import numpy as np
import pytest
import yaml


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """The current folder, with a test set of a small HDF5 file."""
    rng = np.random.default_rng(1)
    with h5py.File(tmp_path / "both.h5", "w") as file:
        file["raw"] = rng.integers(1, 256, (5, 33, 47)).astype(np.uint8)
        file["labels"] = rng.integers(0, 4, (5, 33, 47)).astype(np.uint8)
    entry = {"raw": "both.h5:raw", "truth": "both.h5:labels"}
    content = {"thresholds": 3, "volumes": {"one": {**entry, "roi": "1:4,:,:"}, "two": entry}}
    (tmp_path / "set.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_test_set_is_scored_as_a_table_and_again_for_nothing(run, desk, small_checkpoint):
    words = ["--config", "set.yaml", "--checkpoint", small_checkpoint, "--checkpoint", "raw",
             "--out", "scores", "--set", "workers=1"]  # fmt: skip
    answer = run("evaluate", *words)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert [line.split()[:2] for line in lines[1:7]] == [
        [volume, name] for volume in ("one", "two", "mean") for name in ("small", "raw")
    ]
    assert len({len(line) for line in lines[:7]}) == 1  # columns stand
    assert "4 done, 0 kept" in answer.out
    assert "small on one: predict" in answer.err
    answer = run("evaluate", *words, "--json")
    said = json.loads(answer.out)
    assert (said["done"], len(said["rows"])) == (0, 6)
    assert (desk / said["table"]).is_file()


def test_a_parameter_given_by_set_is_that_of_every_volume(run, desk):
    answer = run("evaluate", "--config", "set.yaml", "--checkpoint", "raw", "--out", "scores",
                 "--set", "agglomeration.threshold=0.55", "--json")  # fmt: skip
    assert answer.code == 0, answer.err
    rows = json.loads(answer.out)["rows"]
    assert [row["threshold"] for row in rows] == [0.55, 0.55, None]


REFUSED = {
    "neither": ([], "Missing argument 'SEG'"),
    "one of two": (["a.zarr"], "Missing argument 'TRUTH'"),
    "both": (["a.zarr", "b.zarr", "--config", "set.yaml"], "SEG does not go with --config"),
    "a box": (["--config", "set.yaml", "--roi", "0:1,:,:"], "--roi does not go with"),
    "no folder": (["--config", "set.yaml", "--checkpoint", "raw"], "Missing option '--out'"),
    "no set": (["a.zarr", "b.zarr", "--checkpoint", "raw"], "--checkpoint needs --config"),
    "no file": (["--config", "gone.yaml", "--out", "s"], "gone.yaml: cannot be read"),
    "no mapping": (["--config", "both.h5", "--out", "s"], "both.h5"),
    "foreign key": (
        ["--config", "set.yaml", "--out", "s", "--checkpoint", "raw", "--set", "mask=m.zarr"],
        "volumes.one.segment.mask: cannot be set here",
    ),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_words_that_do_not_go_together_are_refused(run, desk, words, message):
    before = sorted(desk.iterdir())
    answer = run("evaluate", *words)
    assert answer.code == 2
    assert message in answer.err
    assert sorted(desk.iterdir()) == before
