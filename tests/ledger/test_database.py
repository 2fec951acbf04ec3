"""The ledger holds what was recorded, refuses contradictions, and is read while it is written."""

import sqlite3
import threading
import tracemalloc

import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from emslice.errors import ConfigError, StorageError
from emslice.ledger import database, tables
from emslice.ledger.database import DeterminismError, Ledger
from emslice.ledger.records import StageCount


def test_an_attempt_comes_back_as_it_was(ledger, attempt):
    written = attempt("0_3_1", digest="ab", voxels=[1, 2], nested={"a": None})
    ledger.record(written)
    assert ledger.attempts("f1", "0_3_1") == [written]
    assert ledger.facts("f1", "0_3_1") == {"digest": "ab", "voxels": [1, 2], "nested": {"a": None}}


def test_only_done_tasks_of_the_same_fingerprint_are_done(ledger, attempt):
    ledger.record_many([attempt("a"), attempt("b", "raised"), attempt("c", "lost")])
    assert [ledger.is_done("f1", key) for key in "abcd"] == [True, False, False, False]
    assert ledger.done_keys("f1") == {"a"}
    assert ledger.done_keys("f2") == set()
    assert not ledger.is_done("f2", "a")
    assert ledger.facts("f1", "b") is None


def test_counts_are_of_tasks_and_of_attempts(ledger, attempt):
    ledger.record_many([attempt(k, o) for k in "ab" for o in ("lost", "lost", "raised", "done")])
    ledger.record_many([attempt("c", "raised"), attempt("c", "done", fingerprint="f2")])
    ledger.quarantine("f1", "c", "raised once")
    assert ledger.count("f1") == StageCount(2, 1, 3, 4)
    assert ledger.count("f2") == StageCount(1, 0, 0, 0)
    assert ledger.count("f3") == StageCount()


def test_records_are_there_when_it_is_opened_again(tmp_path, ledger, attempt):
    ledger.record(attempt("a", voxels=3))
    with Ledger(str(tmp_path / "ledger.db"), create=False) as other:
        assert other.facts("f1", "a") == {"voxels": 3}
    with Ledger(f"sqlite:///{tmp_path}/ledger.db") as other:
        assert other.done_keys("f1") == {"a"}


def test_the_same_result_twice_is_one_task_and_two_attempts(ledger, attempt):
    for _ in range(2):
        ledger.record_many([attempt("a", digest="ab"), attempt("a", digest="ab", second=True)])
    ledger.record(attempt("a"))  # says nothing about its result, so it contradicts nothing
    assert ledger.count("f1").done == 1
    assert len(ledger.attempts("f1", "a")) == 5
    assert ledger.facts("f1", "a") == {"digest": "ab"}


@pytest.mark.parametrize("together", [False, True])
def test_two_results_of_one_task_stop_the_run_with_both(ledger, attempt, together):
    batch = [attempt("a", digest="ab"), attempt("b", digest="x"), attempt("a", digest="cd")]
    if not together:
        ledger.record(batch.pop(0))
    with pytest.raises(DeterminismError, match=r"fragments a was.* ab on w1.* cd on w1") as raised:
        ledger.record_many(batch)
    assert (raised.value.first, raised.value.second) == ("ab", "cd")
    assert raised.value.exit_code == 1
    assert ledger.count("f1").done == (0 if together else 1), "all or none"
    assert ledger.attempts("f1", "b") == []


def test_a_digest_that_comes_later_binds_those_after_it(ledger, attempt):
    ledger.record(attempt("a"))
    ledger.record(attempt("a", digest="ab"))
    assert ledger.facts("f1", "a") == {"digest": "ab"}
    with pytest.raises(DeterminismError):
        ledger.record(attempt("a", digest="cd"))


def test_a_task_in_quarantine_shows_its_last_failure_until_it_is_released(ledger, attempt):
    ledger.record_many([attempt("a", "raised"), attempt("a", "lost"), attempt("b", "raised")])
    assert ledger.quarantine("f1", "a", "lost 3 workers alone")
    assert ledger.failures("f1") == [attempt("a", "lost")]
    assert ledger.reasons("f1") == {"a": "lost 3 workers alone"}
    assert ledger.release("f2") == []
    assert ledger.release("f1") == [attempt("a", "lost")]
    assert ledger.failures("f1") == []
    assert len(ledger.attempts("f1", "a")) == 2


def test_all_stages_are_released_together(ledger, attempt):
    for fingerprint in ("f2", "f1"):
        ledger.record(attempt("a", "raised", fingerprint=fingerprint))
        ledger.quarantine(fingerprint, "a", "raised")
    assert [one.fingerprint for one in ledger.release()] == ["f1", "f2"]
    assert ledger.release() == []


def test_done_and_quarantine_exclude_each_other(ledger, attempt):
    ledger.record_many([attempt("a", "raised"), attempt("b", "raised"), attempt("b")])
    assert ledger.quarantine("f1", "a", "raised")
    assert not ledger.quarantine("f1", "b", "raised"), "its data are there"
    ledger.record(attempt("a"))
    assert ledger.count("f1") == StageCount(2, 0, 2, 0)


def test_a_task_that_never_failed_cannot_be_put_into_quarantine(ledger):
    with pytest.raises(ValueError, match="without a failed attempt"):
        ledger.quarantine("f1", "a", "looks odd")


def test_a_forgotten_task_may_come_out_differently(ledger, attempt):
    ledger.record_many([attempt("a", digest="ab"), attempt("b", "raised"), attempt("c")])
    ledger.quarantine("f1", "b", "raised")
    ledger.forget("f1", ["a", "b", "never heard of"])
    assert ledger.count("f1") == StageCount(done=1)
    assert ledger.attempts("f1", "b") == []
    ledger.record(attempt("a", digest="cd"))
    assert ledger.done_keys("f1") == {"a", "c"}


def test_writing_while_reading_neither_blocks_nor_repeats(ledger, attempt, monkeypatch):
    monkeypatch.setattr(database, "PAGE", 3)
    ledger.record_many(attempt(f"{n:02}") for n in range(10))
    seen = []
    for key in ledger.iter_done("f1"):
        seen.append(key)
        if len(seen) == 5:
            ledger.record_many([attempt("00b"), attempt("99")])
            ledger.forget("f1", ["08"])
    assert seen == [*(f"{n:02}" for n in range(8)), "09", "99"]


def test_two_threads_write_side_by_side(ledger, attempt):
    def write(name):
        for n in range(40):
            ledger.record(attempt(f"{name}_{n}"))

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert ledger.count("f1").done <= 80
    for thread in threads:
        thread.join()
    assert ledger.done_keys("f1") == {f"{name}_{n}" for name in "ab" for n in range(40)}


def test_a_hundred_thousand_records_stream_in_constant_memory(ledger, attempt):
    n_records, batch = 100_000, 10_000
    for first in range(0, n_records, batch):
        ledger.record_many(attempt(f"{n}_3_1") for n in range(first, first + batch))
    assert ledger.count("f1").done == n_records
    assert len(ledger.done_keys("f1")) == n_records
    tracemalloc.start()
    try:
        assert sum(1 for _ in ledger.iter_done("f1")) == n_records
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20  # the set of keys takes twice as much, and grows


def test_text_that_is_no_text_is_recorded_all_the_same(ledger, attempt):
    odd = attempt("a", "raised")
    object.__setattr__(odd, "error", "file \udce4\0.tif")
    ledger.record(odd)
    assert ledger.attempts("f1", "a")[0].error == r"file \udce4\x00.tif"


def test_a_commit_is_flushed_and_needs_no_shared_memory(tmp_path):
    with sqlite3.connect(tmp_path / "l.db") as raw:
        raw.execute("PRAGMA journal_mode=WAL")
    raw.close()
    with Ledger(tmp_path / "l.db") as ledger, ledger.database.reading() as connection:
        pragmas = ("journal_mode", "synchronous", "foreign_keys")
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
    assert found == ["delete", 3, 1]  # 3: EXTRA


def test_a_later_schema_is_refused_with_what_to_do(tmp_path):
    Ledger(tmp_path / "l.db").close()
    with sqlite3.connect(tmp_path / "l.db") as raw:
        raw.execute("UPDATE about SET value = '99' WHERE name = 'schema'")
    raw.close()
    with pytest.raises(ConfigError, match=r"schema 99.*knows 1.*[Uu]pdate emslice"):
        Ledger(tmp_path / "l.db")


def test_what_is_no_ledger_is_refused_and_left_alone(tmp_path):
    (tmp_path / "text.db").write_text("no database, but quite some text" * 50)
    with sqlite3.connect(tmp_path / "other.db") as raw:
        raw.execute("CREATE TABLE birds (name)")
    raw.close()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    places = {
        tmp_path / "text.db": "not a ledger",
        tmp_path / "other.db": "birds",
        tmp_path / "no" / "l.db": "there is no folder",
        "s3://bucket/l.db": "s3",
        "sqlite://": "memory",
    }
    for place, message in places.items():
        with pytest.raises(ConfigError, match=message):
            Ledger(place)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_reading_a_run_that_is_none_makes_none(tmp_path):
    with pytest.raises(ConfigError, match="there is no ledger"):
        Ledger(tmp_path / "l.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_not_shown():
    with pytest.raises(ConfigError) as raised:
        Ledger("nosuch://user:hunter2@host/runs")
    assert "hunter2" not in str(raised.value)


def test_a_database_that_stays_locked_is_a_storage_error(tmp_path, monkeypatch, attempt):
    monkeypatch.setattr(tables, "BUSY_S", 0.1)
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.lock("tester")
        blocker = sqlite3.connect(tmp_path / "l.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match=r"l\.db.*locked.*another process"):
            ledger.record(attempt("a"))
        blocker.close()
        ledger.record(attempt("a"))
        assert ledger.done_keys("f1") == {"a"}


def test_the_tables_can_be_made_on_postgresql():
    made = [
        str(CreateTable(table).compile(dialect=postgresql.dialect()))
        for table in tables.METADATA.sorted_tables
    ]
    assert len(made) == 5
