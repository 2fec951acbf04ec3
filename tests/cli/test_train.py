"""``emslice train``: what it prints, what it refuses, what it leaves behind."""

import json
import sys

import numpy as np
import pytest
import yaml
from recipes.small import tree, write_volumes


@pytest.fixture
def bench(tmp_path):
    """A folder with volumes and a configuration of a training of four steps."""
    write_volumes(tmp_path)
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(tree(tmp_path, steps=4)))
    return tmp_path


@pytest.fixture
def train(run, bench):
    """Call ``emslice train supervised`` with options."""

    def call(*options, recipe="supervised"):
        config = ("--config", bench / "train.yaml", "--out", bench / "run")
        return run("train", recipe, *config, *options)

    return call


def test_a_training_says_where_its_weights_are_and_how_good(train, bench, run):
    answer = train()
    assert answer.code == 0, answer.err
    assert f"{bench / 'run/best.ckpt'}  after 4 steps" in answer.out
    assert "bits on the held-out volume, at step" in answer.out
    names = {path.name for path in (bench / "run").iterdir()}
    assert names == {
        "best.ckpt", "card.md", "config.yaml", "curves.png", "last.ckpt", "lock", "metrics.csv",
        "state.pt", "tensorboard", "training.yaml", "validation.png",
    }  # fmt: skip
    listed = run("train", "ls", bench)
    assert "supervised" in listed.out
    assert "4/4" in listed.out
    assert "finished" in listed.out
    again = run("train", "supervised", "--config", bench / "run/config.yaml", "--out", bench / "2")
    assert again.code == 0, again.err


def test_the_card_tells_data_scores_and_limits(train, bench):
    train()
    card = (bench / "run/card.md").read_text()
    for words in ("raw.npy", "sections 0 to 9", "sections 10 to 13", "VOI", "## Limits",
                  "config.yaml", "30 x 6 x 6 nm"):  # fmt: skip
        assert words in card


def test_json_lines_end_with_the_result(train):
    lines = [json.loads(line) for line in train("--json").out.splitlines()]
    assert lines[0].keys() == {"step", "steps", "seconds", "loss"}
    assert lines[-1]["steps"] == 4
    assert lines[-1]["best_step"] in (3, 4)


def test_a_finished_training_can_be_resumed_without_a_step(train, run, bench):
    train()
    before = (bench / "run/last.ckpt").read_bytes()
    assert run("train", "resume", bench / "run").code == 0
    assert (bench / "run/last.ckpt").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "data.pairs.crop=[2,100,64]"], ["data.pairs.crop", "multiples of 16"]),
        (["--set", "data.pairs.crop=[2,512,512]"], ["512", "80", "96"]),
        (["--set", "data.pairs.crop=[1,32,32]"], ["less than 2 sections"]),
        (["--set", "data.resolution_nm=null"], ["data.resolution_nm", "nanometres"]),
        (["--set", "device=cuda"], ["device", "Set device=cpu"]),
        (["--set", "steps=0"], ["steps"]),
        (["--set", "student.weights=absent.ckpt"], ["absent.ckpt", "Check the path"]),
        (["--set", "data.train=[{raw: absent.zarr}]"], ["data.train[0].raw", "absent.zarr"]),
        (["--set", "devices=3"], ["data.pairs.batch", "3 devices"]),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(train, bench, options, words):
    answer = train(*options)
    assert answer.code == 2, answer
    for word in words:
        assert word in answer.err
    assert not (bench / "run").exists()


def test_labels_of_another_shape_are_refused(train, bench):
    np.save(bench / "labels.npy", np.ones((14, 80, 95), np.uint32))
    answer = train()
    assert answer.code == 2
    assert "95" in answer.err


@pytest.mark.parametrize(
    ("recipe", "options", "words"),
    [
        ("cad", ["--set", "teacher.frozen=true"], ["teacher.weights"]),
        ("cad", ["--set", "teacher.embedding=8"], ["loss.fgi", "8", "4"]),
        ("cad_iad", ["--set", "sam=null"], ["sam.weights"]),
        ("cad_iad", ["--set", "data.pairs.crop=[2,48,64]"], ["data.pairs.crop", "32"]),
        ("cad_iad", ["--set", "sam.size=null"], ["sam"]),
    ],
)
def test_recipes_refuse_what_they_cannot_teach_with(train, bench, recipe, options, words):
    answer = train(*options, recipe=recipe)
    assert answer.code == 2, answer
    for word in words:
        assert word in answer.err
    assert not (bench / "run").exists()


def test_a_missing_package_is_named_with_how_to_get_it(train, bench, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("emslice.recipes")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    answer = train()
    assert answer.code == 2
    assert "pip install 'emslice[train]'" in answer.err


def test_the_data_of_a_training_are_checked_all_at_once(run, bench):
    good = run("train", "check", "--config", bench / "train.yaml")
    assert good.code == 0
    assert "10 x 80 x 96 voxels z, y, x, labelled" in good.out
    (bench / "raw.npy").unlink()
    bad = run("train", "check", "--config", bench / "train.yaml")
    assert bad.code == 2
    assert "data.train[0]" in bad.err
    assert "data.validate_on[0]" in bad.err
    shipped = run("train", "check", "--layout", "cremi", "--root", bench)
    assert shipped.code == 2
    assert "cremiA_inputs.h5" in shipped.err
    assert "cremiC_labels.h5" in shipped.err


def test_resuming_nothing_is_refused(run, tmp_path):
    answer = run("train", "resume", tmp_path)
    assert answer.code == 2
    assert "no training" in answer.err
    assert run("train", "ls", tmp_path / "absent").code == 2
