"""What the ledger said it wrote is there, whatever killed the writer."""

import random
import sqlite3
import time

from emslice.ledger.database import Ledger


def test_every_reported_record_survives_kill_9(tmp_path, coordinator):
    path, generator = tmp_path / "ledger.db", random.Random(5)
    reported, first = set(), 0
    for _ in range(10):
        child = coordinator(path, "write", first)
        lines = [child.stdout.readline() for _ in range(generator.randint(1, 20))]
        until = time.perf_counter() + generator.uniform(0, 0.006)
        while time.perf_counter() < until:
            pass
        child.kill()
        lines += child.communicate()[0].splitlines()
        reported |= {int(line) for line in lines}
        with Ledger(path) as ledger:
            found = {facts["n"]: key for key, facts in ledger.facts_of("f")}
        assert reported <= set(found)
        assert all(key == f"{n}_0_0" for n, key in found.items())
        first = max(found) + 1
        with sqlite3.connect(path) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        database.close()
    assert len(reported) >= 50
    assert len(found) - len(reported) <= 10  # the record in flight, once a kill


def test_a_killed_writer_is_replaced_at_once(tmp_path, coordinator):
    child = coordinator(tmp_path / "ledger.db", "write", 0)
    child.stdout.readline()
    child.kill()
    child.wait()
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert ledger.lock("next").number == 2
