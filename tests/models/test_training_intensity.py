"""The grey values that a network was trained on: stated by its file, or known of it."""

import numpy as np
import pytest
import torch

import emslice
from emslice.config.schema import RawConfig
from emslice.errors import CheckpointError
from emslice.models.checkpoint import (
    BETTER_AFFINE,
    INTENSITY,
    PUBLISHED,
    load_checkpoint,
    save_checkpoint,
)
from emslice.models.student import Student
from emslice.ops.lookup import GreyLevel
from emslice.service.normalising import choose_normalisation


@pytest.fixture
def save(tmp_path):
    """Function that writes a checkpoint with another ``intensity`` and gives its path."""

    def write(stated):
        path = tmp_path / "small.ckpt"
        save_checkpoint(path, Student(2, 3).eval(), (40, 4, 4), {}, intensity=GreyLevel(120, 40))
        content = torch.load(path, weights_only=True)
        content["training"]["intensity"] = stated
        torch.save(content, path)
        return path

    return write


def test_what_is_saved_is_what_is_loaded(save):
    path = save({"mean": 120.0, "std": 40.0})
    assert load_checkpoint(path).intensity == GreyLevel(120, 40)


def test_a_file_that_states_none_has_none(small_checkpoint, save):
    assert load_checkpoint(small_checkpoint).intensity is None
    assert load_checkpoint(save(None)).intensity is None


@pytest.mark.parametrize(
    "stated",
    [7, {}, {"mean": 120}, {"mean": "dark", "std": 4}, {"mean": -1, "std": 4},
     {"mean": 120, "std": 0}, {"mean": float("nan"), "std": 4}],
)  # fmt: skip
def test_one_that_makes_no_sense_is_refused(save, stated):
    with pytest.raises(CheckpointError, match="missing or broken"):
        load_checkpoint(save(stated))


def test_every_published_student_has_one():
    assert {name for name, _ in PUBLISHED.values()} == set(INTENSITY)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("cad_AC34", "none"), ("cad_CremiA", "none"), ("cad_CremiB", "none"), ("cad_CremiC", "none"),
     ("cad_wafer4", "affine"), ("slicecrafter_wafer4", "affine")],
)  # fmt: skip
def test_raw_is_moved_by_default_for_those_students_that_it_helps(data_dir, name, mode):
    checkpoint = load_checkpoint(data_dir / "checkpoints" / f"{name}.ckpt")
    assert checkpoint.intensity == INTENSITY[name]
    assert choose_normalisation(RawConfig(), checkpoint).mode == mode
    assert choose_normalisation(RawConfig(normalize="none"), checkpoint).mode == "none"


def test_who_gives_a_target_wants_it(small_checkpoint):
    checkpoint = load_checkpoint(small_checkpoint)
    chosen = choose_normalisation(RawConfig(target=(130, 40)), checkpoint)
    assert (chosen.mode, chosen.target) == ("affine", GreyLevel(130, 40))


def test_by_default_a_checkpoint_of_our_own_gets_raw_as_it_is(save):
    checkpoint = load_checkpoint(save({"mean": 120.0, "std": 40.0}))
    assert choose_normalisation(RawConfig(), checkpoint).mode == "none"


@pytest.mark.parametrize("name", sorted(INTENSITY))
def test_without_normalisation_codes_are_those_of_the_published_network(data_dir, name):
    raw = np.load(data_dir / "golden" / "input_synth_3x160x160.npz")["raw"]
    theirs = np.load(data_dir / "golden" / f"{name}.npz")["affs"]
    path, options = data_dir / "checkpoints" / f"{name}.ckpt", {"precision": "float32"}
    codes = emslice.predict_affinities(raw, path, normalize="none", **options)
    expected = np.minimum(np.floor(256 * theirs), 255)
    assert np.abs(codes - expected).max() <= 1
    moved = (emslice.predict_affinities(raw, path, **options) != codes).any()
    assert moved == (name in BETTER_AFFINE)
