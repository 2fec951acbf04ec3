"""The ledger beside a dictionary: after any history both know the same."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from emslice.ledger.database import DeterminismError, Ledger
from emslice.ledger.records import Attempt, StageCount

tasks = st.tuples(st.sampled_from(["f", "g"]), st.sampled_from(["0_0_0", "0_0_1", "10_2_0"]))
endings = st.sampled_from(["done", "done", "raised", "lost"])
digests = st.sampled_from([None, "x", "x", "x", "y"])


class LedgerBesideDictionary(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.done = {}  # task -> digest
        self.history = []  # (task, outcome)
        self.held = {}  # task -> reason
        self.open()

    def open(self):
        self.ledger = Ledger(Path(self.folder.name) / "ledger.db")
        self.ledger.lock("model")

    @rule(batch=st.lists(st.tuples(tasks, endings, digests), max_size=4))
    def record(self, batch):
        done = dict(self.done)
        consistent = True
        for task, outcome, digest in batch:
            if outcome == "done":
                known = done.get(task)
                consistent &= None in (known, digest) or known == digest
                done[task] = known or digest
        attempts = [
            Attempt("s", *task, "w", "2025", 1.0, 1, outcome, None, {"digest": digest})
            for task, outcome, digest in batch
        ]
        try:
            self.ledger.record_many(attempts)
        except DeterminismError:
            assert not consistent
            return
        assert consistent
        self.done = done
        self.history += [(task, outcome) for task, outcome, _ in batch]
        self.held = {task: why for task, why in self.held.items() if task not in done}

    @rule(task=tasks, why=st.text(max_size=3))
    def quarantine(self, task, why):
        if task not in self.done and not any(t == task for t, _ in self.history):
            return
        assert self.ledger.quarantine(*task, why) == (task not in self.done)
        if task not in self.done:
            self.held[task] = why.replace("\0", r"\x00")

    @rule(fingerprint=st.sampled_from([None, "f", "g"]))
    def release(self, fingerprint):
        expected = sorted(t for t in self.held if fingerprint in (None, t[0]))
        assert [(a.fingerprint, a.key) for a in self.ledger.release(fingerprint)] == expected
        self.held = {task: why for task, why in self.held.items() if task not in expected}

    @rule(some=st.lists(tasks, max_size=2))
    def forget(self, some):
        for fingerprint, key in some:
            self.ledger.forget(fingerprint, [key])
        self.done = {task: digest for task, digest in self.done.items() if task not in some}
        self.held = {task: why for task, why in self.held.items() if task not in some}
        self.history = [(task, outcome) for task, outcome in self.history if task not in some]

    @rule()
    def reopen(self):
        self.ledger.close()  # the lease stays: the process that holds it goes on
        ledger, self.ledger = self.ledger, None
        ledger.unlock()
        ledger.close()
        self.open()

    @invariant()
    def both_know_the_same(self):
        for name in ("f", "g"):
            done = {task[1]: digest for task, digest in self.done.items() if task[0] == name}
            held = {task[1]: why for task, why in self.held.items() if task[0] == name}
            ended = [outcome for task, outcome in self.history if task[0] == name]
            assert list(self.ledger.iter_done(name)) == sorted(done)
            assert {k: f["digest"] for k, f in self.ledger.facts_of(name)} == done
            assert self.ledger.reasons(name) == held
            assert [a.key for a in self.ledger.failures(name)] == sorted(held)
            counts = len(done), len(held), ended.count("raised"), ended.count("lost")
            assert self.ledger.count(name) == StageCount(*counts)

    def teardown(self):
        self.ledger.close()
        self.folder.cleanup()


TestLedgerBesideDictionary = LedgerBesideDictionary.TestCase
TestLedgerBesideDictionary.settings = settings(
    max_examples=20, stateful_step_count=15, deadline=None
)
