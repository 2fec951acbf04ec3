"""Two stages at once, which to the records are two stages."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from engine.toy import Crowd, Squares

from emslice.engine.coordinator import Policy, run_stage
from emslice.engine.dask_executor import DaskExecutor
from emslice.engine.dask_local import TASKS_PER_GPU, visible_devices
from emslice.engine.joint import Joint, JointRecords
from emslice.engine.records import MemoryRecords
from emslice.engine.serial import SerialExecutor


@dataclass(frozen=True)
class Relay(Joint):
    """The first stage's tasks by threes; the second's follow a wave later."""

    first: Squares
    second: Squares
    peak_bytes: int = 2**20

    @property
    def parts(self):
        return self.first, self.second

    def tasks(self):
        behind = []
        for keys in self.first.waves():
            wave = list(keys)
            yield behind + [("first", key) for key in wave]
            behind = [("second", key) for key in wave]
        yield behind


def relay(folder, n=7, **more):
    first = Squares(str(folder / "1"), n, wave=3, name="first", fingerprint="1")
    second = Squares(str(folder / "2"), n, wave=3, name="second", fingerprint="2")
    for part in (first, second):
        Path(part.folder).mkdir()
    return Relay(replace(first, **more.get("first", {})), replace(second, **more.get("second", {})))


def test_records_are_those_of_the_parts_and_what_is_done_is_not_done_again(tmp_path):
    joint, inner = relay(tmp_path), MemoryRecords()
    run_stage(joint.first, SerialExecutor(), inner)
    records, seen = JointRecords(joint, inner), []
    result = run_stage(
        joint, SerialExecutor(), records, report=lambda p: seen.append([*records.progress(p)])
    )
    first, second = records.results(result)
    assert (first.done_before, first.done_now) == (7, 0)
    assert (second.done_before, second.done_now) == (0, 7)
    assert joint.second.outputs() == joint.second.squares()
    assert {(a.stage, a.fingerprint) for a in inner.attempts} == {("first", "1"), ("second", "2")}
    assert [p.done for p in seen[0]] == [7, 0]
    assert [(p.name, p.done, p.total, p.running) for p in seen[-1]] == [
        ("first", 7, 7, 0), ("second", 7, 7, 0),
    ]  # fmt: skip
    assert first.seconds == 0
    assert second.seconds == pytest.approx(result.seconds)


def test_a_part_is_opened_when_its_first_task_comes(tmp_path):
    joint = relay(tmp_path)
    joint.prepare()
    with joint.open() as process:
        process("first:0")
        process("first:1")
        assert len(os.listdir(Path(joint.first.folder, "opened"))) == 1
        assert not os.listdir(Path(joint.second.folder, "opened"))
        assert process("second:4") == {"square": 16}


def test_after_a_task_that_is_given_up_no_other_wave_begins(tmp_path):
    joint = relay(tmp_path, first={"raising": frozenset({"4"})})
    inner = MemoryRecords()
    records = JointRecords(joint, inner)
    result = run_stage(joint, SerialExecutor(), records, Policy(retries=2))
    first, second = records.results(result)
    assert inner.quarantined_keys("1") == {"4"}
    assert (first.quarantined, first.n_raised, first.done_now) == (("4",), 2, 5)
    assert second.done_now == 3  # those behind the wave before


def test_each_part_runs_on_workers_of_its_kind(tmp_path):
    joint, inner = relay(tmp_path, first={"resource": "GPU"}), MemoryRecords()
    with DaskExecutor.local(1, n_gpus=1, batch_s=0.3) as executor:
        run_stage(joint, executor, JointRecords(joint, inner))
        kinds = dict(executor._workers)
    assert joint.second.outputs() == joint.second.squares()
    workers = {(a.stage, *kinds[a.worker]) for a in inner.attempts}
    assert workers == {("first", "GPU"), ("second", "CPU")}


def test_a_worker_of_a_gpu_does_several_tasks_at_a_time(tmp_path):
    """While one is on the device, another is read and a third is written."""
    stage = Crowd(str(tmp_path), 12, resource="GPU", wanted=TASKS_PER_GPU)
    with DaskExecutor.local(1, n_gpus=1, batch_s=0.3) as executor:
        run_stage(stage, executor, records := MemoryRecords())
    assert len({a.worker for a in records.attempts}) == 1
    assert max(stage.seen()) == TASKS_PER_GPU


@pytest.mark.parametrize(
    ("here", "workers"),
    [
        (None, ["0", "1"]),
        ("", ["0", "1"]),
        ("2, 5", ["2", "5"]),
        ("GPU-9,MIG-3,7", ["GPU-9", "MIG-3"]),
    ],
)
def test_workers_of_gpus_share_what_this_process_may_see(monkeypatch, here, workers):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if here is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", here)
    assert visible_devices(2) == workers


def test_a_worker_of_a_gpu_that_is_killed_comes_back_as_one(tmp_path):
    joint, inner = relay(tmp_path, first={"resource": "GPU", "killing": frozenset({"2"})}), (
        MemoryRecords()
    )  # fmt: skip
    with DaskExecutor.local(1, n_gpus=1, batch_s=0.3) as executor:
        result = run_stage(joint, executor, JointRecords(joint, inner))
    assert result.quarantined == ("first:2",)
    assert sum(a.outcome == "done" for a in inner.attempts if a.stage == "first") == 2
