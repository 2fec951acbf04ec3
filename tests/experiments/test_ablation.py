"""An ablation: trained, scored, compared; gone on with where it was."""

import csv

import pytest
import yaml
from recipes.small import same, tree, write_volumes
from service.runs import Silent

from emslice.config.ablation import load_ablation
from emslice.errors import ConfigError
from emslice.experiments.ablation import plan_jobs, run_ablation
from emslice.training.loop import StoppedError


def write(folder, **changes):
    """Files of an ablation over a small training."""
    write_volumes(folder)
    (folder / "train.yaml").write_text(yaml.safe_dump(tree(folder, steps=2)))
    test = {"raw": "raw.npy", "truth": "labels.npy", "roi": "8:12,:,:"}
    (folder / "test.yaml").write_text(yaml.safe_dump({"volumes": {"held-out": test}}))
    ablation = {
        "train": "train.yaml",
        "evaluate": "test.yaml",
        "seeds": [0, 1],
        "first": {"teacher": {"recipe": "teacher3d"}},
        "variants": {
            "supervised": {"recipe": "supervised", "set": {"crops": "volume"}},
            "cad": {
                "recipe": "cad",
                "set": {"teacher.weights": "{teacher}", "teacher.frozen": True, "loss.fgi": 0},
            },
        },
        **changes,
    }
    (folder / "ablation.yaml").write_text(yaml.safe_dump(ablation, sort_keys=False))
    return folder / "ablation.yaml"


def counted(names):
    """A watcher that notes which trainings were begun."""

    def watch(name):
        names.append(name)
        return lambda done, steps: lambda loss, best: None

    return watch


def test_an_ablation_is_trained_scored_and_compared_and_then_kept(tmp_path, monkeypatch):
    file, out, names = write(tmp_path), tmp_path / "out", []
    monkeypatch.chdir(tmp_path)
    found, scored = run_ablation(file, "out", str(tmp_path), counted(names), Silent())
    assert list(found.variants) == ["supervised", "cad"]
    assert found.seeds("cad") == [0, 1]
    assert {row["checkpoint"] for row in scored.rows} == {
        "raw", "supervised-0-best", "supervised-1-best", "cad-0-best", "cad-1-best",
    }  # fmt: skip
    assert names == ["first/teacher", "supervised-0", "supervised-1", "cad-0", "cad-1"]
    with (out / "ablation_runs.csv").open() as file_of_runs:
        rows = list(csv.DictReader(file_of_runs))
    assert [(row["variant"], row["seed"]) for row in rows] == [
        ("supervised", "0"), ("supervised", "1"), ("cad", "0"), ("cad", "1"),
    ]  # fmt: skip
    assert not same(out / "cad-0/best.ckpt", out / "supervised-0/best.ckpt")
    assert (out / "ablation.png").stat().st_size > 1000
    weights = {path: path.stat().st_mtime_ns for path in out.rglob("best.ckpt")}
    assert len(weights) == 5
    again, _ = run_ablation(file, out, str(tmp_path), counted([]), Silent())
    assert again == found
    assert {path: path.stat().st_mtime_ns for path in out.rglob("best.ckpt")} == weights


def test_a_variant_that_names_no_teacher_of_the_file_is_refused(tmp_path):
    file = write(tmp_path, first={})
    with pytest.raises(ConfigError, match="stands for nothing"):
        plan_jobs(load_ablation(file), tmp_path / "out", None)


def test_a_test_set_that_is_not_there_is_found_before_any_training(tmp_path):
    file = write(tmp_path)
    (tmp_path / "labels.npy").rename(tmp_path / "elsewhere.npy")
    with pytest.raises(ConfigError):
        run_ablation(file, tmp_path / "out", str(tmp_path), counted([]), Silent())
    assert not (tmp_path / "out").exists()


def test_stopped_trainings_are_gone_on_with(tmp_path):
    import os
    import signal

    file, out = write(tmp_path, first={}, variants={"a": {"recipe": "supervised"}}), tmp_path / "o"

    def stopping(name):
        return lambda done, steps: lambda loss, best: os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError):
        run_ablation(file, out, str(tmp_path), stopping, Silent())
    found, _ = run_ablation(file, out, str(tmp_path), counted([]), Silent())
    assert found.seeds("a") == [0, 1]


def test_trainings_of_another_ablation_are_refused(tmp_path):
    variants = {"a": {"recipe": "supervised"}}
    file, out = write(tmp_path, first={}, seeds=[0], variants=variants), tmp_path / "out"
    run_ablation(file, out, str(tmp_path), counted([]), Silent())
    variants = {"a": {"recipe": "supervised", "set": {"optimiser.clip": None, "steps": 3}}}
    write(tmp_path, first={}, seeds=[0], variants=variants)
    with pytest.raises(ConfigError, match="another recipe or configuration"):
        run_ablation(file, out, str(tmp_path), counted([]), Silent())


def test_null_unsets_what_the_training_sets(tmp_path):
    variants = {"a": {"recipe": "supervised", "set": {"sam": None}}}
    file = write(tmp_path, first={}, variants=variants)
    _, jobs = plan_jobs(load_ablation(file), tmp_path / "out", str(tmp_path))
    assert jobs[0].config.sam is None
