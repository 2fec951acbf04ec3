import pytest
from engine.toy import Scripted, Squares

from emslice.engine.coordinator import Policy, run_stage
from emslice.engine.failures import StageAborted
from emslice.engine.records import MemoryRecords
from emslice.engine.serial import SerialExecutor
from emslice.errors import ConfigError


@pytest.fixture
def records():
    return MemoryRecords()


def keys_of(records, outcome):
    return [a.key for a in records.attempts if a.outcome == outcome]


def test_every_task_is_done_and_recorded_once(tmp_path, records):
    stage = Squares(str(tmp_path), 7, wave=3)
    with SerialExecutor() as executor:
        result = run_stage(stage, executor, records)
    assert stage.outputs() == stage.squares()
    assert keys_of(records, "done") == [str(i) for i in range(7)]
    assert result.is_complete
    assert (result.done_before, result.done_now, result.quarantined) == (0, 7, ())
    attempt = records.attempts[5]
    assert (attempt.stage, attempt.fingerprint, attempt.facts) == ("squares", "f", {"square": 25})
    assert attempt.seconds > 0
    assert attempt.peak_bytes > 2**20
    assert attempt.started.endswith("+00:00")
    assert result.peak_bytes >= attempt.peak_bytes


def test_what_is_done_is_never_run_again(tmp_path, records):
    half, whole = Squares(str(tmp_path), 4), Squares(str(tmp_path), 7)
    with SerialExecutor() as executor:
        run_stage(half, executor, records)
        result = run_stage(whole, executor, records)
        again = run_stage(whole, executor, records)
    assert [len(whole.tries(str(i))) for i in range(7)] == [1] * 7
    assert (result.done_before, result.done_now) == (4, 3)
    assert (again.done_before, again.done_now, again.is_complete) == (7, 0, True)


def test_a_stage_that_is_done_is_neither_prepared_nor_opened(tmp_path, records):
    stage = Squares(str(tmp_path / "gone"), 3)  # prepare would fail: there is no such folder
    run_stage(Squares(str(tmp_path), 3), SerialExecutor(), records)
    assert run_stage(stage, SerialExecutor(), records).is_complete


def test_a_task_that_raises_is_tried_as_often_as_agreed_and_the_others_are_done(tmp_path, records):
    stage = Squares(str(tmp_path), 9, raising=frozenset({"2", "5"}))
    with SerialExecutor() as executor:
        result = run_stage(stage, executor, records, Policy(retries=4))
    assert stage.outputs() == stage.squares(without={"2", "5"})
    assert [len(stage.tries(key)) for key in ("2", "5")] == [4, 4]
    assert result.quarantined == ("2", "5")
    assert not result.is_complete
    assert result.n_raised == 8
    assert records.reasons["f"]["2"].endswith("ValueError: task 2 is bad\n")
    assert "in process" in records.reasons["f"]["2"]


def test_no_wave_is_begun_after_one_with_a_failure(tmp_path, records):
    stage = Squares(str(tmp_path), 9, raising=frozenset({"4"}), wave=3)
    with SerialExecutor() as executor:
        result = run_stage(stage, executor, records)
        assert stage.outputs() == {str(i): i * i for i in (0, 1, 2, 3, 5)}
        assert (result.done_now, result.quarantined) == (5, ("4",))
        run_stage(stage, executor, records)  # who knows of the failure and goes on, may
    assert stage.outputs() == stage.squares(without={"4"})


def test_a_task_without_memory_is_lost_and_not_its_own_fault(tmp_path, records):
    stage = Squares(str(tmp_path), 6, starved=frozenset({"3"}))
    with SerialExecutor() as executor:
        result = run_stage(stage, executor, records, Policy(retries=1, losses=3))
    assert stage.outputs() == stage.squares(without={"3"})
    assert (result.n_raised, result.n_lost, result.quarantined) == (0, 4, ("3",))
    assert "MemoryError" in records.reasons["f"]["3"]


def test_a_task_that_recovers_is_done(records):
    executor = Scripted({"1": ["raised", "raised"], "2": ["lost"]})
    result = run_stage(Squares("/tmp", 4), executor, records)
    assert result.is_complete
    assert (result.n_raised, result.n_lost) == (2, 1)


def test_quarantined_tasks_are_left_out_until_released(tmp_path, records):
    stage = Squares(str(tmp_path), 5)
    records.quarantine("f", "3", "bad before")
    result = run_stage(stage, SerialExecutor(), records)
    assert (result.quarantined, stage.tries("3")) == (("3",), [])
    records.reasons["f"].clear()
    assert run_stage(stage, SerialExecutor(), records).is_complete


def test_raised_tasks_wait_for_the_end_of_the_wave(records):
    executor = Scripted({"1": ["raised"]})
    run_stage(Squares("/tmp", 6, wave=4), executor, records)
    assert executor.asked == ["0", "1", "2", "3", "1", "4", "5"]


def test_lost_tasks_are_sent_again_alone_and_their_losses_are_not_failures(records):
    executor = Scripted({"1": ["lost", "lost", "lost", "raised"], "2": ["lost"]})
    result = run_stage(Squares("/tmp", 4), executor, records, Policy(retries=2))
    assert result.is_complete
    assert sorted(executor.alone) == ["1", "1", "1", "2"]


def test_a_task_that_alone_loses_three_workers_is_quarantined(records):
    executor = Scripted({"1": ["lost"] * 9})
    result = run_stage(Squares("/tmp", 4), executor, records)
    assert result.quarantined == ("1",)
    assert (len(executor.alone), result.n_lost) == (3, 4)
    assert "lost 3 times" in records.reasons["f"]["1"]


@pytest.mark.parametrize("result", ["raised", "lost"])
def test_a_stage_whose_tasks_all_fail_alike_is_stopped(records, result):
    executor = Scripted({str(i): [result] * 9 for i in range(5, 1000)})
    with pytest.raises(StageAborted) as stop:
        run_stage(Squares("/tmp", 1000), executor, records)
    assert stop.value.exit_code == 1
    assert f"Task '{stop.value.key}'" in str(stop.value)
    assert stop.value.reason in str(stop.value)
    assert len(executor.asked) < 5 + 60
    assert records.done_keys("f") == {"0", "1", "2", "3", "4"}


def test_tasks_that_failed_with_the_whole_stage_are_not_left_out_afterwards(records):
    stage = Squares("/tmp", 30)
    with pytest.raises(StageAborted):
        run_stage(stage, Scripted({str(i): ["raised"] * 3 for i in range(30)}), records)
    assert records.quarantined_keys("f") == set()
    assert run_stage(stage, Scripted(), records).is_complete


def test_many_bad_tasks_among_good_ones_do_not_stop_a_stage(records):
    bad = [str(i) for i in range(20, 80, 2)]
    executor = Scripted({key: ["raised"] * 3 for key in bad})
    result = run_stage(Squares("/tmp", 80), executor, records)
    assert result.quarantined == tuple(sorted(bad))


def test_bad_tasks_in_a_row_do_not_stop_a_stage_if_others_were_done_since(records):
    bad = [str(i) for i in range(11, 20)]  # nine in a row, and one at the end
    executor = Scripted({key: ["raised"] * 3 for key in [*bad, "29"]})
    assert len(run_stage(Squares("/tmp", 30), executor, records).quarantined) == 10


def test_reports_add_up(records):
    seen = []
    executor = Scripted({"1": ["raised"] * 3, "2": ["lost"]})
    run_stage(Squares("/tmp", 6), executor, records, report=seen.append)
    assert [(p.name, p.total) for p in seen] == [("squares", 6)] * len(seen)
    assert (seen[0].done, seen[0].failed, seen[0].running) == (0, 0, 0)
    assert (seen[-1].done, seen[-1].failed, seen[-1].running) == (5, 1, 0)
    assert all(p.done + p.failed + p.running <= p.total for p in seen)


def test_an_interrupt_leaves_only_records_of_what_is_done(tmp_path, records):
    stage = Squares(str(tmp_path), 9)

    def interrupt(progress):
        if progress.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, SerialExecutor(), records, report=interrupt)
    assert records.done_keys("f") == set(stage.outputs()) == {"0", "1", "2", "3"}
    assert run_stage(stage, SerialExecutor(), records).is_complete
    assert [len(stage.tries(str(i))) for i in range(9)] == [1] * 9


def test_a_policy_that_never_gives_up_is_refused():
    with pytest.raises(ConfigError, match="losses is 0"):
        Policy(losses=0)
