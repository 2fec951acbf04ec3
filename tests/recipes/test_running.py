"""A training that was stopped, killed or fed otherwise is the training that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from recipes.small import SILENT, configured, same, train, tree, weights

from emslice.errors import ConfigError
from emslice.models.checkpoint import load_checkpoint
from emslice.recipes.listing import list_runs
from emslice.recipes.running import resume, start
from emslice.training.loop import DivergedError, StoppedError
from emslice.training.metrics import read_metrics


def curves(run):
    """Rows that do not tell time."""
    return [row for row in read_metrics(run) if row["split"] != "speed"]


def stop_after(n):
    """A watcher that asks to stop after some steps."""

    def watch(done, steps):
        def advance(loss, best):
            nonlocal done
            done += 1
            if done == n:
                os.kill(os.getpid(), signal.SIGTERM)

        return advance

    return watch


@pytest.mark.parametrize("recipe", ["supervised", "teacher3d", "cad", "cad_iad"])
def test_a_resumed_training_is_the_uninterrupted_one_bit_by_bit(volumes, tmp_path, recipe):
    train(volumes, tmp_path / "whole", recipe)
    with pytest.raises(StoppedError, match=r"after step 3 of 6.*emslice train resume"):
        start(recipe, configured(volumes), tmp_path / "parts", stop_after(3))
    resume(tmp_path / "parts", SILENT)
    for name in ("best.ckpt", "last.ckpt"):
        assert same(tmp_path / "whole" / name, tmp_path / "parts" / name)
    assert curves(tmp_path / "whole") == curves(tmp_path / "parts")


def begun(volumes, folder, **changes):
    """A process that trains, with a state saved; and where."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(tree(volumes, **changes)))
    run = folder / "killed"
    emslice = str(Path(sys.executable).with_name("emslice"))
    command = [emslice, "train", "supervised", "--config", str(config), "--out", str(run)]
    child = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    while child.poll() is None and not (run / "state.pt").exists():
        time.sleep(0.02)
    return child, run


def test_a_training_that_was_killed_goes_on_from_its_last_saved_step(volumes, tmp_path):
    train(volumes, tmp_path / "whole", steps=24)
    child, run = begun(volumes, tmp_path, steps=24)
    child.kill()
    child.communicate()
    assert not (run / "last.ckpt").exists()
    assert list_runs(tmp_path)[0].state == "stopped"
    assert resume(run, SILENT).steps == 24
    assert same(tmp_path / "whole/last.ckpt", run / "last.ckpt")
    assert curves(tmp_path / "whole") == curves(run)


def test_a_signal_to_all_processes_of_a_training_saves_it(volumes, tmp_path):
    child, run = begun(volumes, tmp_path, steps=400, data__workers=1)
    os.killpg(child.pid, signal.SIGTERM)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "Go on: emslice train resume" in errors
    step = torch.load(run / "state.pt", weights_only=True)["state"]["step"]
    assert f"after step {step} of 400" in errors


def test_workers_that_make_crops_change_nothing(volumes, tmp_path):
    for workers in (0, 2):
        train(volumes, tmp_path / str(workers), data__workers=workers, validation__every=100)
    assert same(tmp_path / "0/last.ckpt", tmp_path / "2/last.ckpt")


def test_what_is_trained_on_cannot_choose_the_step(volumes, tmp_path):
    paths = {"raw": str(volumes / "raw.npy"), "labels": str(volumes / "labels.npy")}
    with pytest.raises(ConfigError, match=r"share 9:10,0:80,0:96"):
        train(volumes, tmp_path / "run", data__validate_on=[{**paths, "sections": [9, 14]}])


def test_the_seed_changes_everything(volumes, tmp_path):
    for seed in (0, 1):
        train(volumes, tmp_path / str(seed), seed=seed, steps=2)
    assert not same(tmp_path / "0/last.ckpt", tmp_path / "1/last.ckpt")


def test_the_best_checkpoint_is_of_the_step_that_validation_chose(volumes, tmp_path):
    trained = train(volumes, tmp_path / "run", validation__every=2)
    chosen = {int(r["step"]): float(r["value"]) for r in curves(tmp_path / "run")
              if r["name"] == "chosen"}  # fmt: skip
    assert set(chosen) == {2, 4, 6}
    assert trained.best == min(chosen.values())
    best = load_checkpoint(tmp_path / "run/best.ckpt")
    assert best.provenance["step"] == trained.best_step
    assert chosen[trained.best_step] == trained.best
    assert best.resolution_nm == (30, 6, 6)
    assert 50 < best.intensity.mean < 200


def test_without_a_held_out_volume_the_last_step_is_the_best(volumes, tmp_path):
    trained = train(volumes, tmp_path / "run", steps=2, data__validate_on=None)
    assert trained.best_step is None
    assert same(tmp_path / "run/best.ckpt", tmp_path / "run/last.ckpt")


def test_a_folder_in_use_is_neither_begun_nor_resumed(volumes, tmp_path):
    train(volumes, tmp_path / "run", steps=2)
    before = weights(tmp_path / "run/last.ckpt")
    with pytest.raises(ConfigError, match=r"already exists.*emslice train resume"):
        train(volumes, tmp_path / "run", steps=2)
    from emslice.training.state import locked

    with locked(tmp_path / "run"), pytest.raises(ConfigError, match="another process"):
        resume(tmp_path / "run", SILENT)
    assert weights(tmp_path / "run/last.ckpt").keys() == before.keys()


def test_data_that_changed_are_refused(volumes, tmp_path):
    run = tmp_path / "run"
    train(volumes, run, steps=2)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["train"][0]["sections"] = [1, 10]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match="first crops are others now"):
        resume(run, SILENT)


def test_trainings_are_listed_with_how_far_they_are(volumes, tmp_path):
    train(volumes, tmp_path / "a", steps=2)
    with pytest.raises(StoppedError):
        start("cad", configured(volumes), tmp_path / "b", stop_after(3))
    rows = list_runs(tmp_path)
    assert [(row.recipe, row.step, row.steps, row.state) for row in rows] == [
        ("supervised", 2, 2, "finished"),
        ("cad", 3, 6, "stopped"),
    ]
    assert rows[0].best_step == 2


def test_other_weights_to_begin_with_are_refused(volumes, tmp_path):
    train(volumes, tmp_path / "first", steps=1)
    weights = tmp_path / "first/last.ckpt"
    config = configured(volumes, student__weights=str(weights))
    with pytest.raises(StoppedError):
        start("supervised", config, tmp_path / "run", stop_after(2))
    train(volumes, tmp_path / "second", steps=2)
    weights.write_bytes((tmp_path / "second/last.ckpt").read_bytes())
    with pytest.raises(ConfigError, match="weights are others now"):
        resume(tmp_path / "run", SILENT)


def test_a_training_is_resumed_from_any_folder(volumes, tmp_path, monkeypatch):
    monkeypatch.chdir(volumes)
    paths = {"raw": "raw.npy", "labels": "labels.npy"}
    config = configured(volumes, data__train=[paths], data__validate_on=None)
    with pytest.raises(StoppedError):
        start("supervised", config, tmp_path / "run", stop_after(2))
    monkeypatch.chdir(tmp_path)
    assert resume("run", SILENT).steps == 6


def test_what_a_start_left_that_died_before_its_record_is_no_obstacle(volumes, tmp_path):
    (tmp_path / "config.yaml").write_text("steps: 1\n")
    (tmp_path / ".training.yaml.7.partial").write_text("recipe")
    assert train(volumes, tmp_path, steps=1).steps == 1
    assert not list(tmp_path.glob("*.partial"))


def test_the_state_knows_of_every_best_checkpoint(volumes, tmp_path):
    """Else a replay that scores otherwise would leave a file that no curve shows."""
    run = tmp_path / "run"
    config = configured(volumes, validation__every=1, save_every=100)
    with pytest.raises(StoppedError):
        start("supervised", config, run, stop_after(3))
    state = torch.load(run / "state.pt", weights_only=True)["state"]
    assert state["best_step"] == load_checkpoint(run / "best.ckpt").provenance["step"]


def test_frozen_networks_are_in_no_saved_state(volumes, tmp_path):
    train(volumes, tmp_path / "run", "cad_iad", steps=1)
    saved = torch.load(tmp_path / "run/state.pt", weights_only=True)["weights"]
    assert {name.split(".")[0] for name in saved} == {"student", "teacher", "adapter"}


def test_a_loss_that_is_not_finite_ends_the_training(volumes, tmp_path):
    with pytest.raises(DivergedError, match=r"step \d+ is not finite"):
        train(volumes, tmp_path / "run", optimiser__rate=1e25, optimiser__eps=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation__crop": [4, 32, 32]}, "validation.crop"),
        ({"validation__precision": "bfloat16"}, "validation.precision"),
    ],
)
def test_what_cannot_be_validated_is_refused_first(volumes, tmp_path, change, message, monkeypatch):
    monkeypatch.setattr("emslice.models.profile.bfloat16_unit", lambda: None)
    with pytest.raises(ConfigError, match=message):
        train(volumes, tmp_path / "run", **change)
    assert not (tmp_path / "run").exists()
