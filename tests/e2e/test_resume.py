"""Monday's user: runs that were killed, failed or changed go on, and end with the same bytes.

What is killed or signalled is a process; all else is done in this one, which saves its imports.
"""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

import emslice
from emslice.cli.main import main
from emslice.demo.synthetic import synthetic_em
from emslice.geometry.boxes import parse_roi, within
from emslice.ledger.database import Ledger
from emslice.models.checkpoint import load_checkpoint, save_checkpoint
from emslice.volumes import create_volume, open_volume
from emslice.volumes.digest import digest, digest_array

EMSLICE = str(Path(sys.executable).parent / "emslice")
STAGES = ["predict", "fragments", "stitch", "agglomerate", "cut", "dust", "relabel"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Raw of two runs of sections, and the digest of an undisturbed run in 27 blocks.

    The demo's student finds the 290 fragments and 26 segments of it: other parameters give others.
    """
    folder = tmp_path_factory.mktemp("desk")
    array, _ = synthetic_em((20, 50, 61), seed=4)
    checkpoint = Path(emslice.__file__).parent / "demo" / "student.ckpt"
    resolution = load_checkpoint(checkpoint).resolution_nm
    volume = create_volume(
        folder / "raw.zarr", shape=array.shape, dtype=array.dtype, resolution_nm=resolution
    )
    volume.write(volume.roi, array)
    done = segment(folder, checkpoint, "undisturbed")
    assert done.returncode == 0, done.stderr
    return folder, checkpoint, result(folder / "undisturbed")


def command(checkpoint, name, *options):
    return ["segment", "raw.zarr", name, "--checkpoint", str(checkpoint),
            "--block", "7,23,27", "--workers", "1", "--min-size", "5", *options]  # fmt: skip


def start(folder, checkpoint, name, *options):
    """A process that segments."""
    return subprocess.Popen(
        [EMSLICE, *command(checkpoint, name, *options)], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def call(folder, *arguments):
    """The command, in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):  # fmt: skip
        patch.setattr(sys, "argv", ["emslice", *arguments])
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def segment(folder, checkpoint, name, *options):
    """A new run, to its end."""
    return call(folder, *command(checkpoint, name, *options))


def finished(desk, name):
    """A run that ended: the undisturbed one in another folder, from where it goes on as well."""
    folder = desk[0]
    shutil.copytree(folder / "undisturbed", folder / name, symlinks=True)
    return folder / name


def result(run):
    volume = open_volume(run / "segmentation.zarr")
    return digest(volume)


def wait_until(run, stage, n_done, process):
    """Poll the status until a stage has so many tasks done; False if the run ended before."""
    while process.poll() is None:
        try:
            status = json.loads((run / "status.json").read_text())
        except (OSError, ValueError):
            status = {"stages": []}
        done = {s["name"]: s["done"] for s in status["stages"]}
        if done.get(stage, 0) >= n_done:
            return True
        with ledger_of(run) as ledger:
            if ledger is not None and count(ledger, run, stage) >= n_done:
                return True
        time.sleep(0.005)
    return False


class ledger_of:
    """The ledger of a run, or None while there is none."""

    def __init__(self, run):
        self.path = run / "ledger.sqlite"

    def __enter__(self):
        self.ledger = None
        try:
            if self.path.exists():
                self.ledger = Ledger(self.path, create=False)
        except Exception:
            self.ledger = None
        return self.ledger

    def __exit__(self, *_):
        if self.ledger is not None:
            self.ledger.close()


def fingerprint(run, stage):
    found = sorted((run / "stages" / stage).glob("*"), key=lambda path: path.stat().st_mtime)
    return found[-1].name if found else ""


def count(ledger, run, stage):
    return ledger.count(fingerprint(run, stage)).done


def attempts(run, stage):
    """Attempts at every task of a stage, by key."""
    with Ledger(run / "ledger.sqlite", create=False) as ledger:
        name = fingerprint(run, stage)
        return {key: ledger.attempts(name, key) for key in ledger.done_keys(name)}


def kill_and_resume(desk, name, stage, n_done):
    folder, checkpoint, expected = desk
    process = start(folder, checkpoint, name)
    reached = wait_until(folder / name, stage, n_done, process)
    process.kill()
    process.communicate()
    before = {s: set(attempts(folder / name, s)) for s in STAGES}
    answer = call(folder, "resume", name)
    assert answer.returncode == 0, answer.stderr
    assert result(folder / name) == expected
    for s in STAGES:
        tries = attempts(folder / name, s)
        assert all(len(tries[key]) == 1 for key in before[s])  # none was done again
    return reached


@pytest.mark.parametrize(
    ("stage", "n_done"), [("predict", 1), ("fragments", 7), ("stitch", 20), ("agglomerate", 12)]
)
def test_a_killed_coordinator_is_resumed_and_nothing_is_done_twice(desk, stage, n_done):
    assert kill_and_resume(desk, f"killed-{stage}", stage, n_done)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_twenty_kills_at_random_moments(desk, seed):
    rng = random.Random(seed)
    stage = STAGES[seed % len(STAGES)]
    status = json.loads(call(desk[0], "status", "undisturbed", "--json").stdout)
    total = next(s["total"] for s in status["stages"] if s["name"] == stage)
    kill_and_resume(desk, f"random-{seed}", stage, rng.randint(1, total))


def test_a_second_coordinator_is_refused_while_the_first_is_alive(desk):
    folder, checkpoint, _ = desk
    process = start(folder, checkpoint, "live")
    assert wait_until(folder / "live", "predict", 1, process)
    answer = call(folder, "resume", "live")
    process.communicate()
    assert process.returncode == 0
    assert answer.returncode == 2
    assert str(process.pid) in answer.stderr


def test_status_tells_how_far_a_run_came(desk):
    folder, _, _ = desk
    status = json.loads(call(folder, "status", "undisturbed", "--json").stdout)
    assert status["state"] == "done"
    assert [s["name"] for s in status["stages"]] == STAGES
    assert all(s["done"] == s["total"] and s["failed"] == 0 for s in status["stages"])
    assert {"blocks_per_s", "eta_s"} <= set(status)


def test_a_killed_run_is_shown_as_interrupted(desk):
    folder, checkpoint, _ = desk
    process = start(folder, checkpoint, "gone")
    wait_until(folder / "gone", "predict", 1, process)
    process.kill()
    process.communicate()
    file = folder / "gone" / "status.json"
    old = json.loads(file.read_text())
    old["updated"] = "2020-01-01T00:00:00+00:00"
    file.write_text(json.dumps(old))
    assert json.loads(call(folder, "status", "gone", "--json").stdout)["state"] == "interrupted"


def test_a_stopped_run_says_how_to_go_on_and_goes_on(desk):
    folder, checkpoint, expected = desk
    process = start(folder, checkpoint, "stopped")
    assert wait_until(folder / "stopped", "predict", 1, process)
    process.send_signal(signal.SIGTERM)  # as a batch system does; Ctrl-C is the same
    _, err = process.communicate()
    assert process.returncode == 1
    assert "emslice resume" in err
    record = yaml.safe_load((folder / "stopped" / "run.yaml").read_text())
    assert (record["state"], record["error"]) == ("failed", "KeyboardInterrupt")
    assert call(folder, "resume", "stopped").returncode == 0
    assert result(folder / "stopped") == expected


def test_another_threshold_does_only_the_last_stages_again(desk):
    folder, checkpoint, expected = desk
    finished(desk, "again")
    assert call(folder, "resume", "again", "--threshold", "0.8").returncode == 0
    record = yaml.safe_load((folder / "again" / "run.yaml").read_text())
    done_before = {name: s.get("done_before") for name, s in record["stages"].items()}
    for stage in ("predict", "fragments", "stitch", "agglomerate"):
        assert done_before[stage] == record["stages"][stage]["tasks"]
    assert done_before["cut"] == done_before["dust"] == done_before["relabel"] == 0
    segment(folder, checkpoint, "straight", "--threshold", "0.8")
    assert result(folder / "again") == result(folder / "straight") != expected


@pytest.mark.parametrize(
    "change",
    [
        ("--linkage", "mean"),
        ("--linkage", "quantile"),
        ("--set", "fragments.radius=5"),
        ("--set", "block=[5,40,33]"),
    ],
)
def test_changed_parameters_give_what_a_new_run_gives(desk, change):
    folder, checkpoint, expected = desk
    name = f"changed-{change[-1].split('=')[0]}"
    finished(desk, name)
    answer = call(folder, "resume", name, *change)
    assert answer.returncode == 0, answer.stderr
    segment(folder, checkpoint, f"{name}-new", *change)
    found = result(folder / name)
    assert found == result(folder / f"{name}-new")
    assert (found == expected) == change[-1].startswith("block")


def test_a_changed_checkpoint_does_everything_again_and_mixes_nothing(desk, tmp_path):
    folder, checkpoint, expected = desk
    network = load_checkpoint(checkpoint).network
    with torch.no_grad():
        next(network.parameters()).mul_(0.8)
    other = tmp_path / "other.ckpt"
    save_checkpoint(other, network, load_checkpoint(checkpoint).resolution_nm, {})
    finished(desk, "weights")
    answer = call(folder, "resume", "weights", "--checkpoint", str(other))
    assert answer.returncode == 0, answer.stderr
    stages = yaml.safe_load((folder / "weights" / "run.yaml").read_text())["stages"]
    assert all(stages[name]["done_before"] == 0 for name in STAGES)
    segment(folder, other, "weights-new")
    assert result(folder / "weights") == result(folder / "weights-new") != expected


def test_a_damaged_input_fails_its_blocks_only_and_retry_mends_the_run(desk, tmp_path):
    folder, checkpoint, expected = desk
    segment(folder, checkpoint, "kept", "--affinities", "keep")
    affinities = open_volume(folder / "kept" / "affinities.zarr")
    copy = create_volume(
        tmp_path / "aff.zarr", shape=affinities.roi.shape, dtype="uint8", channels=3,
        chunk_shape=(4, 30, 30),
    )  # fmt: skip
    copy.write(copy.roi, affinities.read(affinities.roi))
    chunk = tmp_path / "aff.zarr" / "c" / "0" / "2" / "1" / "1"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    options = ("--block", "7,23,27", "--workers", "1", "--min-size", "5")
    answer = call(tmp_path, "segment", "--from-affinities", "aff.zarr", "run", *options)
    assert answer.returncode == 1
    assert "retry" in answer.stderr
    status = json.loads(call(tmp_path, "status", "run", "--json").stdout)
    fragments = next(s for s in status["stages"] if s["name"] == "fragments")
    assert status["state"] == "holes"
    assert 0 < fragments["failed"] < fragments["total"]
    assert fragments["done"] == fragments["total"] - fragments["failed"]
    codes = affinities.read(affinities.roi)
    record = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    for hole in record["holes"]:
        codes[(slice(None), *within(parse_roi(hole["roi"], affinities.domain), affinities.roi))] = 0
    assert result(tmp_path / "run") == digest_array(emslice.segment_affinities(codes, min_size=5))
    chunk.write_bytes(whole)
    answer = call(tmp_path, "retry", "run", "--failed")
    assert answer.returncode == 0, answer.stderr
    assert result(tmp_path / "run") == expected


def test_a_killed_worker_does_not_stop_the_run(desk):
    folder, checkpoint, expected = desk
    process = start(folder, checkpoint, "worker", "--workers", "2")
    assert wait_until(folder / "worker", "predict", 1, process)
    os.kill(worker_of(process.pid), signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert result(folder / "worker") == expected


def worker_of(pid):
    """A Dask worker below a coordinator: the child of a child that is no tracker."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        except OSError:
            continue
    workers = [
        p for p in children.get(pid, [])
        if "spawn_main" in Path(f"/proc/{p}/cmdline").read_text()
    ]  # fmt: skip
    return workers[0]


def test_a_folder_that_holds_no_run_is_refused(tmp_path):
    for verb in (("resume",), ("status",), ("retry", "--failed")):
        answer = call(tmp_path, verb[0], "nothing", *verb[1:])
        assert answer.returncode == 2
        assert "nothing" in answer.stderr
