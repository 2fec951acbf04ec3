import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from distributed import LocalCluster
from engine.toy import Picky, Squares

from emslice.engine.coordinator import run_stage
from emslice.engine.dask_executor import DaskExecutor
from emslice.engine.failures import NoWorkersError, StageAborted
from emslice.engine.records import MemoryRecords
from emslice.engine.serial import SerialExecutor
from emslice.errors import UnfitWorkerError


@pytest.fixture(scope="module")
def two_workers():
    """Started once for all tests; workers that a test kills come back."""
    with DaskExecutor.local(2, batch_s=0.3, worker_ttl_s=2) as executor:
        yield executor


@pytest.fixture
def records():
    return MemoryRecords()


def children():
    """Process ids of this process's children that live, zombies included.

    Python's own resource tracker, which stays for as long as the interpreter, is not counted.
    """
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            command = (folder / "cmdline").read_text()
        except OSError:  # it ended meanwhile
            continue
        if int(parent) == os.getpid() and "resource_tracker" not in command:
            pids.append(int(folder.name))
    return pids


def wait_until(is_true, timeout_s=30):
    end = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.02)


def assert_done_once(records, n):
    done = [a.key for a in records.attempts if a.outcome == "done"]
    assert sorted(done, key=int) == [str(i) for i in range(n)]


def test_files_and_facts_equal_those_of_the_serial_executor(tmp_path, two_workers):
    answers = []
    for executor in (SerialExecutor(), two_workers):
        folder = tmp_path / type(executor).__name__
        folder.mkdir()
        stage, records = Squares(str(folder), 60, wave=25), MemoryRecords()
        assert run_stage(stage, executor, records).is_complete
        assert_done_once(records, 60)
        answers.append((stage.outputs(), {a.key: a.facts for a in records.attempts}))
    assert answers[0] == answers[1]


def test_waves_are_in_order(tmp_path, records, two_workers):
    run_stage(Squares(str(tmp_path), 40, wave=8, seconds=0.01), two_workers, records)
    waves = [int(a.key) // 8 for a in records.attempts]
    assert waves == sorted(waves)
    assert len({a.worker for a in records.attempts}) == 2


def test_a_stage_is_opened_once_on_each_worker_and_closed_when_another_begins(
    tmp_path, records, two_workers
):
    stage = Squares(str(tmp_path), 30, wave=10, seconds=0.02)
    run_stage(stage, two_workers, records)
    pids = stage.pids()
    assert len(pids) == len(set(pids)) == 2
    assert not list((tmp_path / "closed").iterdir())
    other = tmp_path / "other"
    other.mkdir()
    run_stage(Squares(str(other), 30, seconds=0.02), two_workers, MemoryRecords())
    assert len(list((tmp_path / "closed").iterdir())) == 2


def test_what_is_done_is_never_run_again(tmp_path, records, two_workers):
    whole = Squares(str(tmp_path), 20)
    run_stage(Squares(str(tmp_path), 9), two_workers, records)
    result = run_stage(whole, two_workers, records)
    assert (result.done_before, result.done_now) == (9, 11)
    assert [len(whole.tries(str(i))) for i in range(20)] == [1] * 20


def test_a_task_that_raises_is_tried_three_times_and_the_others_are_done(
    tmp_path, records, two_workers
):
    stage = Squares(str(tmp_path), 50, raising=frozenset({"7"}))
    result = run_stage(stage, two_workers, records)
    assert (result.quarantined, len(stage.tries("7"))) == (("7",), 3)
    assert stage.outputs() == stage.squares(without={"7"})
    assert "ValueError: task 7 is bad" in records.reasons["f"]["7"]


def test_a_task_that_kills_its_worker_is_quarantined_after_three_lone_losses(
    tmp_path, records, two_workers
):
    stage = Squares(str(tmp_path), 40, killing=frozenset({"11"}))
    result = run_stage(stage, two_workers, records)
    assert result.quarantined == ("11",)
    assert len(stage.tries("11")) == len(set(stage.tries("11"))) == 4  # once in its batch
    assert stage.outputs() == stage.squares(without={"11"})
    lost = [a for a in records.attempts if a.outcome == "lost" and a.key == "11"]
    assert (len(lost), lost[0].facts, lost[0].error) == (4, {}, None)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["kill -9", "kill -STOP"])
def test_a_run_survives_what_happens_to_a_worker(tmp_path, records, two_workers, blow):
    stage = Squares(str(tmp_path), 60, seconds=0.05)

    def strike():
        wait_until(lambda: stage.tries("20"))
        os.kill(stage.tries("20")[0], blow)

    striker = threading.Thread(target=strike)
    striker.start()
    result = run_stage(stage, two_workers, records)
    striker.join()
    assert result.is_complete
    assert result.n_lost > 0
    assert_done_once(records, 60)
    assert stage.outputs() == stage.squares()


def test_a_stage_whose_tasks_all_raise_is_stopped_early(tmp_path, records, two_workers):
    stage = Squares(str(tmp_path), 5000, raising=frozenset(map(str, range(5000))))
    with pytest.raises(StageAborted, match=r"ValueError: task \d+ is bad"):
        run_stage(stage, two_workers, records)
    assert len(records.attempts) < 500
    assert run_stage(Squares(str(tmp_path), 5), two_workers, MemoryRecords()).is_complete


def test_keys_are_taken_a_bounded_window_ahead(tmp_path, two_workers):
    n_taken, ahead, batch = 0, 0, 0
    stage = Squares(str(tmp_path), 10_000, log=False)
    stage.prepare()

    def keys():
        nonlocal n_taken
        for n_taken in range(1, 10_001):
            yield str(n_taken)

    n_back = 0
    for outcomes in two_workers.run(stage, keys()):
        ahead = max(ahead, n_taken - n_back)
        n_back += len(outcomes)
        batch = max(batch, two_workers._size.n)
    assert n_back == 10_000
    # Four batches a worker; one of the two may just be starting anew after an earlier test.
    assert batch <= 10_000 // 4
    assert ahead <= 4 * batch


def test_an_abandoned_run_leaves_the_executor_usable(tmp_path, records, two_workers):
    stage = Squares(str(tmp_path), 400, seconds=0.05)

    def interrupt(progress):
        if progress.done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, two_workers, records, report=interrupt)
    assert records.done_keys("f") <= set(stage.outputs())
    assert run_stage(Squares(str(tmp_path), 40), two_workers, records).is_complete


def test_a_worker_that_is_stopped_while_it_starts_is_replaced(tmp_path, records):
    before = set(children())
    stage = Squares(str(tmp_path), 30, seconds=0.02)
    with DaskExecutor.local(1, start_s=3) as executor:
        (first,) = set(children()) - before
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: set(children()) - before - {first})
        (second,) = set(children()) - before - {first}
        os.kill(second, signal.SIGSTOP)
        assert run_stage(stage, executor, records).is_complete
    assert set(children()) == before


def listening(pid):
    """Addresses at which a process waits for connections."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in links]
    return [socket.inet_ntoa(bytes.fromhex(local.split(":")[0])[::-1]) for local in ours]


def test_only_loopback_is_listened_to(two_workers):
    assert two_workers.n_workers == 2
    found = [address for pid in [os.getpid(), *children()] for address in listening(pid)]
    assert len(found) >= 5  # the scheduler, two nannies, two workers
    assert set(found) == {"127.0.0.1"}


def test_a_worker_above_its_memory_is_killed_and_close_leaves_nothing(tmp_path, records):
    before = set(children())
    stage = Squares(str(tmp_path), 6, hungry=frozenset({"3"}))
    with DaskExecutor.local(1, memory_bytes=500 * 2**20, batch_s=0.3) as executor:
        result = run_stage(stage, executor, records)
        assert set(children()) > before
    assert result.quarantined == ("3",)
    assert set(children()) == before
    assert len(multiprocessing.active_children()) <= len(before)
    executor.close()


def test_ctrl_c_ends_soon_with_a_stopped_worker_and_a_long_task(tmp_path, records):
    before = set(children())
    stage = Squares(str(tmp_path), 9, seconds=60)

    def strike():
        wait_until(lambda: stage.tries("0") and stage.tries("1"))
        os.kill(stage.tries("0")[0], signal.SIGSTOP)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    striker = threading.Thread(target=strike)
    striker.start()
    with DaskExecutor.local(2) as executor, pytest.raises(KeyboardInterrupt):
        run_stage(stage, executor, records)
    striker.join()
    assert set(children()) == before
    assert records.attempts == []


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_coordinator(tmp_path, blow):
    code = f"""
from engine.toy import Picky, Squares
from emslice.engine.coordinator import run_stage
from emslice.engine.dask_executor import DaskExecutor
from emslice.engine.records import MemoryRecords
if __name__ == "__main__":
    with DaskExecutor.local(2) as executor:
        run_stage(Squares({str(tmp_path)!r}, 9, seconds=20), executor, MemoryRecords())
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    stage = Squares(str(tmp_path), 9)
    job = subprocess.Popen(
        [sys.executable, script],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
    )
    wait_until(lambda: stage.tries("0") and stage.tries("1"))
    # Ctrl-C reaches the workers as well, kill -9 the coordinator only.
    (os.killpg if blow == signal.SIGINT else os.kill)(job.pid, blow)
    _, errors = job.communicate(timeout=30)
    wait_until(lambda: not any(Path(f"/proc/{p}").exists() for p in stage.pids()))
    assert errors.count("Traceback") == (blow == signal.SIGINT)
    assert "distributed" not in errors.replace("/distributed/", "")


def test_workers_of_another_scheduler_are_used_and_left_running(tmp_path, records):
    """One with Dask's own settings, which would send a lost task elsewhere."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=2,
        resources={"CPU": 1},
        dashboard_address="127.0.0.1:0",
        silence_logs=100,
    ) as cluster:
        stage = Squares(str(tmp_path), 40, killing=frozenset({"7"}), seconds=0.01)
        with DaskExecutor.connect(cluster.scheduler_address, batch_s=0.3) as executor:
            result = run_stage(stage, executor, records)
        assert result.quarantined == ("7",)
        assert len(stage.tries("7")) == 4
        assert stage.outputs() == stage.squares(without={"7"})
        wait_until(lambda: len(cluster.scheduler_info["workers"]) == 2)


def test_a_stage_that_finds_no_worker_of_its_kind_says_so(tmp_path):
    stage = Squares(str(tmp_path), 3, resource="GPU")
    with DaskExecutor.local(1, patience_s=0.5) as executor:
        assert executor.n_workers == 1
        with pytest.raises(NoWorkersError, match="resource GPU"):
            run_stage(stage, executor, MemoryRecords())


@pytest.mark.slow
def test_memory_of_the_coordinator_is_flat(tmp_path, two_workers):
    """Measured here: 30 bytes of growth a task are the keys themselves."""

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    sizes = []
    two_workers._batch_s, batch_s = 0.05, two_workers._batch_s
    for n in (5_000, 20_000):
        stage = Squares(str(tmp_path), n, log=False)
        records = MemoryRecords(keep_attempts=False)
        assert run_stage(stage, two_workers, records).is_complete
        sizes.append(resident())
    two_workers._batch_s = batch_s
    assert sizes[1] - sizes[0] < 20 * 2**20


def test_a_worker_of_another_kind_gets_no_tasks_and_none_is_blamed(tmp_path, records, two_workers):
    stage = Picky(str(tmp_path), 40, seconds=0.02)
    result = run_stage(stage, two_workers, records)
    assert result.is_complete
    assert (result.n_raised, result.n_lost) == (0, 0)
    assert stage.outputs() == stage.squares()
    assert_done_once(records, 40)
    assert (tmp_path / "unfit").read_text() not in map(str, stage.pids())


@pytest.mark.parametrize("kind", ["serial", "dask"])
def test_a_stage_that_fits_no_worker_says_so_and_leaves_no_task_out(
    tmp_path, records, two_workers, kind
):
    executor = SerialExecutor() if kind == "serial" else two_workers
    stage = Picky(str(tmp_path), 40, picky="all")
    with pytest.raises(UnfitWorkerError, match="is of another kind"):
        run_stage(stage, executor, records)
    assert not records.attempts
    assert not records.quarantined_keys(stage.fingerprint)


def test_workers_that_one_stage_refused_may_run_the_next(tmp_path, records, two_workers):
    with pytest.raises(UnfitWorkerError):
        run_stage(Picky(str(tmp_path), 4, picky="all"), two_workers, records)
    other = Squares(str(tmp_path), 4, fingerprint="other")
    assert run_stage(other, two_workers, records).is_complete
