"""A run is known to be alive while it runs, and how it ended afterwards."""

import time
from contextlib import suppress

import pytest

from emslice.engine.coordinator import StageProgress
from emslice.ledger.database import Ledger
from emslice.ledger.records import Attempt
from emslice.ledger.status import read_status
from emslice.service import supervision
from emslice.service.supervision import Supervision


class Stage:
    name, fingerprint, n_tasks = "fragments", "f0", 7


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        opened.lock("test")
        yield opened
        opened.unlock()


def attempt(key):
    return Attempt("fragments", "f0", key, "w", "2026-11-21T00:00:00+00:00", 0.1, 5, "done")


def test_the_status_says_running_until_the_end_and_then_how_it_ended(tmp_path, ledger, monkeypatch):
    monkeypatch.setattr(supervision, "BEAT_S", 0.01)
    for end in ("failed", "done"):
        with Supervision(tmp_path, ledger, [Stage()], []) as running:
            running.progress(StageProgress("fragments", 7, 3, 1, 2))
            time.sleep(0.1)
            status = read_status(tmp_path)
            assert status.state == "running"
            assert (status.stages[0].done, status.stages[0].failed) == (3, 1)
            if end == "done":
                running.end("done")
        assert read_status(tmp_path).state == end


def test_an_error_counts_as_failed(tmp_path, ledger):
    with suppress(ZeroDivisionError), Supervision(tmp_path, ledger, [Stage()], []):
        raise ZeroDivisionError
    assert read_status(tmp_path).state == "failed"


def test_what_was_done_before_is_counted_and_hooks_hear_of_what_is_done_now(tmp_path, ledger):
    ledger.record(attempt("0_0_0"))
    heard = []
    hook = lambda fingerprint, key: heard.append((fingerprint, key))  # noqa: E731
    with Supervision(tmp_path, ledger, [Stage()], [hook]) as running:
        assert read_status(tmp_path).stages[0].done == 1
        running.record_many([attempt("0_0_1")])
    assert heard == [("f0", "0_0_1")]
    assert ledger.is_done("f0", "0_0_1")
