"""Anyone may read how far a run is, at any moment."""

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emslice.errors import ConfigError, StorageError
from emslice.ledger.status import (
    Coordinator,
    Rate,
    RunStatus,
    StageStatus,
    is_stale,
    read_status,
    utc,
    write_status,
)


def status(done=3, state="running", at=1000.0):
    stages = (StageStatus("predict", 8, 8), StageStatus("fragments", 105, done, 1, 4))
    return RunStatus(state, stages, utc(at), Coordinator("login1", 4711), 2.5, 38.0)


def test_a_status_comes_back_as_it_was(tmp_path):
    write_status(tmp_path, status())
    assert read_status(tmp_path) == status()
    text = json.loads((tmp_path / "status.json").read_text())
    assert text["stages"][1] == {
        "name": "fragments", "total": 105, "done": 3, "failed": 1, "running": 4,
    }  # fmt: skip
    assert text["coordinator"] == {"host": "login1", "pid": 4711}


def test_a_folder_that_is_no_run_is_named(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(ConfigError, match=f"{place.name}.*give the folder of a run"):
            read_status(place)


def test_what_a_later_emslice_adds_is_left_out(tmp_path):
    values = status().as_dict() | {"weather": "fine"}
    values["stages"][0]["colour"] = "blue"
    (tmp_path / "status.json").write_text(json.dumps(values))
    assert read_status(tmp_path) == status()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"stages": 3}', "\udce4"])
def test_a_damaged_status_is_a_storage_error(tmp_path, text):
    (tmp_path / "status.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StorageError, match=r"status\.json"):
        read_status(tmp_path)


def test_a_reader_never_fails_while_it_is_replaced(tmp_path):
    write_status(tmp_path, status(0))
    seen, written = [0], 0

    def replace():
        nonlocal written
        while written < 1000 or len(set(seen)) <= 50:  # however seldom the reader has its turn
            write_status(tmp_path, status(written + 1))
            written += 1

    writer = threading.Thread(target=replace)
    writer.start()
    while writer.is_alive():
        seen.append(read_status(tmp_path).stages[1].done)
    writer.join()
    assert seen == sorted(seen)
    assert len(set(seen)) > 50
    assert read_status(tmp_path).stages[1].done == written


def test_only_a_running_run_goes_stale():
    assert not is_stale(status(at=1000), now=1060)
    assert is_stale(status(at=1000), now=1061)
    assert not is_stale(status(at=1000), now=1061, after_s=90)
    assert not is_stale(status(at=1000, state="done"), now=9999)


def rate_of(moments, **options):
    rate = Rate(0.0, **options)
    for at, n_tasks in moments:
        rate.add(n_tasks, at)
    return rate


def test_without_a_completion_there_is_no_rate_and_no_end():
    rate = Rate(0.0)
    assert rate.per_s(500.0) == 0
    assert rate.eta_s(10, 500.0) is None
    assert rate.eta_s(0, 500.0) == 0


@pytest.mark.parametrize("pause_s", [0.01, 0.5, 3, 30, 250, 1200, 7000])
def test_batches_give_a_steady_rate_at_every_moment(pause_s):
    rate = rate_of((pause_s * n, 32) for n in range(1, 201))
    for part in (0, 0.1, 0.5, 0.99):
        assert rate.per_s(pause_s * (200 + part)) == pytest.approx(32 / pause_s, rel=0.02)


@pytest.mark.parametrize("part", [0, 0.2, 0.9])
def test_workers_that_end_together_are_not_taken_for_a_burst(part):
    """16 workers end within a minute, every 20 minutes."""
    moments = [(1200.0 * n + 4 * worker, 10) for n in range(1, 11) for worker in range(16)]
    rate = rate_of(moments)
    assert rate.per_s(12_060 + part * 1140) == pytest.approx(160 / 1200, rel=0.3)


def test_a_new_pace_is_followed_within_a_window():
    rate = rate_of([(float(t), 2) for t in range(1, 1001)])
    for t in range(1001, 1302):
        rate.add(10, float(t))
    assert rate.per_s(1301.0) == pytest.approx(10, rel=0.01)
    assert rate.eta_s(600, 1301.0) == pytest.approx(60, rel=0.01)


def test_a_stall_lowers_the_rate():
    rate = rate_of([(10.0 * n, 4) for n in range(1, 31)])
    assert rate.per_s(310.0) == pytest.approx(0.4)
    assert rate.per_s(900.0) < 0.15
    assert rate.per_s(30_000.0) < 0.01


def test_memory_stays_bounded_and_the_rate_right():
    rate = rate_of(((2.0 * n, 1) for n in range(1, 20_001)), max_moments=512)
    assert len(rate._times) <= 512
    assert rate.per_s(40_000.0) == pytest.approx(0.5, rel=0.01)


@given(
    steps=st.lists(st.tuples(st.floats(-5, 5000), st.integers(0, 1000)), max_size=30),
    after=st.floats(-5, 1e6),
)
def test_no_history_gives_a_negative_or_endless_rate(steps, after):
    rate, now = Rate(0.0), 0.0
    for step, n_tasks in steps:
        now += step
        rate.add(n_tasks, now)
    assert 0 <= rate.per_s(now + after) < float("inf")
    eta = rate.eta_s(5, now + after)
    assert eta is None or 0 <= eta < float("inf")
