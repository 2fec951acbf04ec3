from dataclasses import replace

from engine.toy import Squares

from emslice.engine.serial import SerialExecutor


def test_a_stage_is_opened_once_and_closed_when_another_begins(tmp_path):
    first = Squares(str(tmp_path), 3)
    second = replace(first, fingerprint="g")
    first.prepare()
    with SerialExecutor() as executor:
        for _ in range(2):
            list(executor.run(first, ["0", "1"]))
        assert (len(first.pids()), len(list((tmp_path / "closed").iterdir()))) == (1, 0)
        list(executor.run(second, ["2"]))
        assert (len(first.pids()), len(list((tmp_path / "closed").iterdir()))) == (2, 1)
    assert len(list((tmp_path / "closed").iterdir())) == 2


def test_a_stage_that_does_not_open_fails_its_tasks(tmp_path):
    stage = Squares(str(tmp_path / "nowhere"), 1)
    with SerialExecutor() as executor:
        ((outcome,),) = executor.run(stage, ["0"])
    assert outcome.outcome == "raised"
    assert "FileNotFoundError" in outcome.error


def test_facts_that_json_cannot_hold_fail_the_task(tmp_path):
    stage = Squares(str(tmp_path), 1)
    stage.prepare()
    object.__setattr__(stage, "process", lambda key: {"at": object()})
    with SerialExecutor() as executor:
        ((outcome,),) = executor.run(stage, ["0"])
    assert (outcome.outcome, outcome.facts) == ("raised", {})
    assert "not JSON serializable" in outcome.error


def test_keys_are_taken_one_at_a_time(tmp_path):
    stage = Squares(str(tmp_path), 9)
    stage.prepare()
    keys = iter("012345678")
    with SerialExecutor() as executor:
        next(executor.run(stage, keys))
    assert next(keys) == "1"
