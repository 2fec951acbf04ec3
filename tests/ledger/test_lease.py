"""One coordinator at a time, and one that was replaced cannot write."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest

from emslice.ledger import lease as leases
from emslice.ledger.database import Ledger
from emslice.ledger.lease import FencedError, RunLockedError
from emslice.ledger.process import Process, this_process

ELSEWHERE = Process("gpu07", "another boot/pid:[1]", 4711, 99)


class Clock:
    """A clock that goes when it is told to."""

    at = 1_000_000.0

    def __call__(self):
        return self.at


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pair(tmp_path):
    """Two ledgers on one database: two coordinators."""
    with Ledger(tmp_path / "l.db") as one, Ledger(tmp_path / "l.db") as other:
        yield one, other


def test_a_held_run_is_refused_with_who_since_when_and_until_when(pair, clock):
    one, other = pair
    leases.acquire(one.database, "anna", clock, 60, ELSEWHERE)
    clock.at += 20
    expected = (
        r"anna \(gpu07, pid 4711\) since 1970-01-12T13:46:40.*until 1970-01-12T13:47:40.*40 s"
    )
    with pytest.raises(RunLockedError, match=expected) as raised:
        other.lock("ben", clock)
    assert raised.value.exit_code == 2


def test_a_lease_of_this_very_process_is_alive(pair, clock):
    one, other = pair
    one.lock("anna", clock)
    with pytest.raises(RunLockedError, match=f"pid {os.getpid()}"):
        other.lock("ben", clock)


def test_an_expired_lease_is_taken_over_and_its_holder_fenced(pair, clock, attempt):
    one, other = pair
    first = one.lock("anna", clock, ttl_s=60)
    one.record(attempt("a"))
    clock.at += 60
    second = other.lock("ben", clock, ttl_s=60)
    assert second.number == first.number + 1
    with pytest.raises(FencedError, match=r"anna held lease 1 .*lease 2 went to ben.*must stop"):
        one.record(attempt("b"))
    with pytest.raises(FencedError):
        one.renew(clock)
    one.unlock()  # not one's own any more: nothing happens
    other.record(attempt("c"))
    assert other.done_keys("f1") == {"a", "c"}


def test_every_kind_of_write_is_fenced(pair, clock, attempt):
    one, other = pair
    one.lock("anna", clock)
    one.record_many([attempt("a"), attempt("b", "raised"), attempt("c", "raised")])
    one.quarantine("f1", "c", "raised")
    clock.at += 1000
    other.lock("ben", clock)
    writes = [
        lambda: one.record(attempt("z")),
        lambda: one.quarantine("f1", "b", "raised"),
        lambda: one.release(),
        lambda: one.forget("f1", ["a"]),
    ]
    for write in writes:
        with pytest.raises(FencedError):
            write()
    assert (other.done_keys("f1"), list(other.reasons("f1"))) == ({"a"}, ["c"])


def test_an_expired_lease_that_nobody_took_still_writes_and_renews(pair, clock, attempt):
    one, other = pair
    first = one.lock("anna", clock, ttl_s=60)
    clock.at += 100
    one.record(attempt("a"))
    renewed = one.renew(clock)
    assert renewed == dataclasses.replace(first, expires=clock.at + 60)
    with pytest.raises(RunLockedError):
        other.lock("ben", clock)


def test_a_lease_given_back_is_free_at_once(pair, clock, attempt):
    one, other = pair
    lease = one.lock("anna", clock)
    one.unlock()
    with pytest.raises(FencedError, match="lock it first"):
        one.record(attempt("a"))
    with pytest.raises(FencedError, match="given back"):
        leases.renew(one.database, lease, clock)
    assert other.lock("ben", clock).number == 2


def test_without_a_lease_nothing_is_written(pair, attempt):
    with pytest.raises(FencedError, match="opened for reading"):
        pair[0].record(attempt("a"))
    with pytest.raises(FencedError, match="nothing to renew"):
        pair[0].renew()
    pair[0].unlock()
    assert pair[1].done_keys("f1") == set()


def test_a_recycled_pid_is_not_mistaken_for_the_holder(pair, clock):
    me = this_process()
    former = dataclasses.replace(me, started=me.started - 1)
    leases.acquire(pair[0].database, "anna", clock, 60, former)
    assert pair[1].lock("ben", clock).number == 2


def test_a_holder_is_gone_only_if_that_is_certain():
    me = this_process()
    assert not me.is_gone
    assert dataclasses.replace(me, pid=2**22 + 1).is_gone
    assert not ELSEWHERE.is_gone
    assert not dataclasses.replace(me, machine="", pid=2**22 + 1).is_gone


def test_a_stopped_process_is_there_and_a_zombie_is_gone():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stat = f"/proc/{child.pid}/stat"

    def state():
        with open(stat) as file:
            return file.read().rpartition(")")[2].split()[0]

    with open(stat) as file:
        born = int(file.read().rpartition(")")[2].split()[19])
    process = dataclasses.replace(this_process(), pid=child.pid, started=born)
    for number, shown, gone in ((signal.SIGSTOP, "T", False), (signal.SIGKILL, "Z", True)):
        child.send_signal(number)
        while state() != shown:
            time.sleep(0.001)
        assert process.is_gone == gone
    child.communicate()
    assert process.is_gone


def test_a_coordinator_that_slept_past_its_lease_writes_nothing(tmp_path, coordinator, attempt):
    child = coordinator(tmp_path / "l.db", "wait")
    number = int(child.stdout.readline())
    child.send_signal(signal.SIGSTOP)
    with Ledger(tmp_path / "l.db") as ledger:
        with pytest.raises(RunLockedError, match=f"sleeper .*pid {child.pid}"):
            ledger.lock("next")
        later = time.time() + 1000
        assert ledger.lock("next", lambda: later).number == number + 1
        child.send_signal(signal.SIGCONT)
        said = child.communicate("write\n")[0]
        assert said.startswith("FencedError sleeper held lease 1 ")
        assert ledger.done_keys("f") == set()
        ledger.record(attempt("a"))


def test_four_processes_race_and_one_holds_it_at_a_time(tmp_path, coordinator):
    n_processes, n_rounds = 4, 8
    children = [coordinator(tmp_path / "l.db", "race", n_rounds) for _ in range(n_processes)]
    assert [child.wait() for child in children] == [0] * n_processes  # 1: found another inside
    numbers = [int(line) for line in (tmp_path / "numbers").read_text().split()]
    assert numbers == list(range(1, n_processes * n_rounds + 1))
