"""A training that was stopped, killed or fed otherwise is the training that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from recipes.small import SILENT, configured, same, train, tree, weights

from emslice.errors import ConfigError
from emslice.models.checkpoint import load_checkpoint
from emslice.recipes.listing import list_runs
from emslice.recipes.running import StoppedError, resume, start
from emslice.training.metrics import read_metrics


def curves(run):
    """Rows that do not tell time."""
    return [row for row in read_metrics(run) if row["split"] != "speed"]


def stop_after(n):
    """A watcher that asks to stop after some steps."""

    def watch(done, steps):
        def advance(_):
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


def test_a_training_that_was_killed_goes_on_from_its_last_saved_step(volumes, tmp_path):
    train(volumes, tmp_path / "whole", steps=8)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(tree(volumes, steps=8)))
    run = tmp_path / "killed"
    emslice = str(Path(sys.executable).with_name("emslice"))
    command = [emslice, "train", "supervised", "--config", str(config), "--out", str(run)]
    child = subprocess.Popen(command)
    while child.poll() is None and not (run / "state.pt").exists():
        time.sleep(0.02)
    child.kill()
    child.wait()
    assert resume(run, SILENT).steps == 8
    assert same(tmp_path / "whole/last.ckpt", run / "last.ckpt")
    assert curves(tmp_path / "whole") == curves(run)


def test_workers_that_make_crops_change_nothing(volumes, tmp_path):
    for workers in (0, 2):
        train(volumes, tmp_path / str(workers), data__workers=workers, validation__every=100)
    assert same(tmp_path / "0/last.ckpt", tmp_path / "2/last.ckpt")


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
