"""The coordinator's memory while it runs: records in the ledger, lease kept, status written."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from emslice.engine.coordinator import StageProgress
from emslice.engine.stage import Stage
from emslice.errors import EmsliceError
from emslice.ledger.database import Ledger
from emslice.ledger.process import this_process
from emslice.ledger.records import Attempt
from emslice.ledger.status import (
    Coordinator,
    Rate,
    RunStatus,
    StageStatus,
    State,
    utc,
    write_status,
)

LEASE_S = 60.0
"""Seconds after which a coordinator that is not heard of is taken for dead on another host."""

BEAT_S = 1.0
"""Seconds between two writings of the status."""


DoneHook = Callable[[str, str], None]
"""Called with fingerprint and key after a task is recorded as done."""


class Supervision:
    """What the engine records to, and what keeps a run known to be alive.

    A thread renews the lease and writes ``status.json``, also while a single task takes hours. If
    another coordinator has taken over, the next record raises and the run ends.
    """

    def __init__(
        self, folder: Path, ledger: Ledger, stages: list[Stage], when_done: list[DoneHook]
    ) -> None:
        self._folder, self._ledger = folder, ledger
        self.watch(stages, when_done)
        self._rate = Rate(time.monotonic())
        self._failure: EmsliceError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._end: State = "failed"

    def watch(self, stages: list[Stage], when_done: list[DoneHook]) -> None:
        """Report on other stages, and tell others of what is done."""
        counts = [(stage, self._ledger.count(stage.fingerprint)) for stage in stages]
        self._stages = {
            stage.name: StageStatus(stage.name, stage.n_tasks, count.done, count.failed)
            for stage, count in counts
        }
        self._when_done = when_done

    def __enter__(self) -> Supervision:
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._write(self._end)

    def end(self, state: State) -> None:
        """Say how the run ended, which otherwise counts as failed; written on leaving."""
        self._end = state

    def progress(self, progress: StageProgress) -> None:
        """Note where a stage stands."""
        known = self._stages[progress.name]
        self._rate.add(max(0, progress.done - known.done), time.monotonic())
        self._stages[progress.name] = StageStatus(**asdict(progress))

    def done_keys(self, fingerprint: str) -> set[str]:
        """Tasks with a record."""
        return self._ledger.done_keys(fingerprint)

    def quarantined_keys(self, fingerprint: str) -> set[str]:
        """Tasks that are left out."""
        return set(self._ledger.reasons(fingerprint))

    def quarantine(self, fingerprint: str, key: str, reason: str) -> None:
        """Leave a task out from now on."""
        self._ledger.quarantine(fingerprint, key, reason)

    def record_many(self, attempts: Sequence[Attempt]) -> None:
        """Remember attempts, durably, all or none.

        Raises
        ------
        EmsliceError
            Another coordinator has taken over, or a task gave another result than before.
        """
        if self._failure is not None:
            raise self._failure
        self._ledger.record_many(attempts)
        for attempt in attempts:
            if attempt.outcome == "done":
                for hook in self._when_done:
                    hook(attempt.fingerprint, attempt.key)

    def _beat(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(BEAT_S):
            if time.monotonic() - renewed > LEASE_S / 4:
                try:
                    self._ledger.renew()
                except EmsliceError as error:
                    self._failure = error
                    return
                renewed = time.monotonic()
            self._write()

    def _write(self, state: State = "running") -> None:
        stages = tuple(self._stages.values())
        left = sum(stage.total - stage.done - stage.failed for stage in stages)
        now, process = time.monotonic(), this_process()
        status = RunStatus(
            state=state,
            stages=stages,
            updated=utc(time.time()),
            coordinator=Coordinator(process.host, process.pid),
            blocks_per_s=self._rate.per_s(now),
            eta_s=self._rate.eta_s(left, now),
        )
        write_status(self._folder, status)
