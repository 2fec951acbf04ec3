"""Drive one stage to its end: what to send, what to send again, when to give up.

A task that raises is tried again and then quarantined; a lost worker is nobody's fault until a
task loses one after the other while it runs alone. Whatever happens to one task, the others go
on. Every attempt is recorded, after its data are durable: a task without a record is run again,
so a run that dies anywhere resumes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from time import perf_counter

from emslice.engine.executor import Executor, Outcome
from emslice.engine.failures import StageAborted
from emslice.engine.records import Records
from emslice.engine.stage import Stage
from emslice.errors import ConfigError
from emslice.ledger.records import Attempt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """When to give up. Counts start anew with every run."""

    retries: int = 3
    """Attempts at a task that raises, the first included."""

    losses: int = 3
    """Workers that a task may lose while it runs alone."""

    equal_failures: int = 10
    """Tasks that fail alike, with nothing done in between, before the stage is stopped."""

    def __post_init__(self) -> None:
        for name, n in vars(self).items():
            if n < 1:
                raise ConfigError(f"{name} is {n}; it must be at least 1")


DEFAULT = Policy()


@dataclass(frozen=True)
class StageProgress:
    """Where a stage stands; counts of tasks, those of earlier runs included."""

    name: str
    total: int
    done: int
    failed: int
    running: int
    """Sent and not back yet, whether a worker has begun with them or not."""


@dataclass(frozen=True)
class StageResult:
    """How a stage ended."""

    name: str
    total: int
    done_before: int
    """Tasks that an earlier run had done."""
    done_now: int
    quarantined: tuple[str, ...]
    """Keys that are left out, those of earlier runs included; sorted."""
    n_raised: int
    n_lost: int
    """Attempts that did not end well, also of tasks that were done later."""
    seconds: float
    peak_bytes: int
    """Largest of any worker."""

    @property
    def is_complete(self) -> bool:
        """Tell whether every task is done."""
        return not self.quarantined and self.done_before + self.done_now == self.total


def ignore(progress: StageProgress) -> None:
    """Report to nobody."""


def run_stage(
    stage: Stage,
    executor: Executor,
    records: Records,
    policy: Policy = DEFAULT,
    report: Callable[[StageProgress], None] = ignore,
) -> StageResult:
    """Run what is neither done nor quarantined.

    ``report`` is called at the start and whenever outcomes came: often, so it should be cheap.

    Raises
    ------
    StageAborted
        If ``policy.equal_failures`` tasks failed alike and none succeeded in between. They are
        not quarantined: the fault is the stage's, and once it is mended the run resumes whole.
    """
    return _Run(stage, executor, records, policy, report).to_the_end()


@dataclass
class _Trouble:
    """What went wrong with a task so far."""

    n_done: int
    """Tasks done when it failed first: nothing was done since, if it is the same now."""
    n_raised: int = 0
    n_lost_alone: int = 0


class _Run:
    def __init__(
        self,
        stage: Stage,
        executor: Executor,
        records: Records,
        policy: Policy,
        report: Callable[[StageProgress], None],
    ) -> None:
        self._stage, self._executor, self._records = stage, executor, records
        self._policy, self._report = policy, report
        self._done_before = records.done_keys(stage.fingerprint)
        self._quarantined = set(records.quarantined_keys(stage.fingerprint)) - self._done_before
        self._n_done = self._n_raised = self._n_lost = self._n_running = self._peak_bytes = 0
        self._trouble: dict[str, _Trouble] = {}
        self._raised: list[str] = []  # to be tried again
        self._lonely: list[str] = []  # to be tried again, alone
        self._losers: set[str] = set()  # workers lost since something was done
        self._suspects: list[tuple[str, str]] = []  # given up since something was done

    def to_the_end(self) -> StageResult:
        stage, start = self._stage, perf_counter()
        self._tell()
        prepared, n_left_out = False, len(self._quarantined)
        for wave in stage.waves():
            pending = (key for key in wave if self._is_pending(key))
            for first in pending:  # a wave with nothing to do opens nothing
                if not prepared:
                    stage.prepare()
                    prepared = True
                self._run_wave(chain([first], pending))
            self._quarantine_suspects()
            if len(self._quarantined) > n_left_out:  # what comes next may need it
                break
        result = StageResult(
            name=stage.name,
            total=stage.n_tasks,
            done_before=len(self._done_before),
            done_now=self._n_done,
            quarantined=tuple(sorted(self._quarantined)),
            n_raised=self._n_raised,
            n_lost=self._n_lost,
            seconds=perf_counter() - start,
            peak_bytes=self._peak_bytes,
        )
        logger.info("%s", result)
        return result

    def _is_pending(self, key: str) -> bool:
        return key not in self._done_before and key not in self._quarantined

    def _run_wave(self, fresh: Iterator[str]) -> None:
        while self._send(self._feed(fresh)):
            while self._send(self._feed_alone(), alone=True):
                pass
            self._losers.clear()

    def _feed(self, fresh: Iterator[str]) -> Iterator[str]:
        """Keys as the executor asks for them.

        Tasks that raised come again at the end, when what troubled them may be over, unless many
        wait: then at once, so that a broken stage is found out early. For the same reason
        nothing more is sent when worker after worker is lost, until the lone tasks had their try.
        """
        limit = self._policy.equal_failures
        while len(self._losers) < limit:
            key = None if len(self._raised) >= limit else next(fresh, None)
            if key is None:
                if not self._raised:
                    return
                key = self._raised.pop()
            yield key

    def _feed_alone(self) -> Iterator[str]:
        while self._lonely:
            yield self._lonely.pop()

    def _send(self, keys: Iterator[str], alone: bool = False) -> int:
        """Run the keys and settle what comes back. Returns how many there were."""
        n_sent = 0

        def counted() -> Iterator[str]:
            nonlocal n_sent
            for key in keys:
                n_sent += 1
                self._n_running += 1
                yield key

        with closing(self._executor.run(self._stage, counted(), alone)) as groups:
            for outcomes in groups:
                self._records.record_many([self._attempt(outcome) for outcome in outcomes])
                self._n_running -= len(outcomes)
                for outcome in outcomes:
                    self._settle(outcome, alone)
                self._tell()
        assert self._n_running == 0, "the executor owes an outcome for every key"
        return n_sent

    def _settle(self, outcome: Outcome, alone: bool) -> None:
        key = outcome.key
        self._peak_bytes = max(self._peak_bytes, outcome.peak_bytes)
        if outcome.outcome == "done":
            self._n_done += 1
            self._trouble.pop(key, None)
            self._losers.clear()
            self._quarantine_suspects()
            return
        trouble = self._trouble.setdefault(key, _Trouble(self._n_done))
        if outcome.outcome == "raised":
            self._n_raised += 1
            trouble.n_raised += 1
            if trouble.n_raised >= self._policy.retries:
                self._give_up(key, outcome.error or "no traceback")
            else:
                self._raised.append(key)
        else:
            self._n_lost += 1
            trouble.n_lost_alone += alone
            self._losers.add(outcome.worker)
            if trouble.n_lost_alone >= self._policy.losses:
                reason = f"lost {trouble.n_lost_alone} times while running alone"
                self._give_up(key, f"{outcome.error}\n{reason}" if outcome.error else reason)
            else:
                self._lonely.append(key)

    def _attempt(self, outcome: Outcome) -> Attempt:
        logger.debug("%s %s: %s", self._stage.name, outcome.key, outcome.outcome)
        return Attempt(
            stage=self._stage.name,
            fingerprint=self._stage.fingerprint,
            key=outcome.key,
            worker=outcome.worker,
            started=outcome.started,
            seconds=outcome.seconds,
            peak_bytes=outcome.peak_bytes,
            outcome=outcome.outcome,
            error=outcome.error,
            facts=outcome.facts,
        )

    def _give_up(self, key: str, reason: str) -> None:
        """Quarantine a task, or hold it back while the stage itself may be what is broken."""
        if self._trouble.pop(key).n_done != self._n_done:  # others were done meanwhile
            self._quarantine(key, reason)
            return
        self._suspects.append((key, reason))
        n_equal = sum(_gist(other) == _gist(reason) for _, other in self._suspects)
        if n_equal >= self._policy.equal_failures:
            raise StageAborted(self._stage.name, n_equal, key, reason)

    def _quarantine_suspects(self) -> None:
        for key, reason in self._suspects:
            self._quarantine(key, reason)
        self._suspects.clear()

    def _quarantine(self, key: str, reason: str) -> None:
        self._records.quarantine(self._stage.fingerprint, key, reason)
        self._quarantined.add(key)

    def _tell(self) -> None:
        self._report(
            StageProgress(
                name=self._stage.name,
                total=self._stage.n_tasks,
                done=len(self._done_before) + self._n_done,
                failed=len(self._quarantined) + len(self._suspects),
                running=self._n_running,
            )
        )


def _gist(reason: str) -> str:
    """Last line without its numbers: tasks name themselves in their messages.

    >>> _gist("ValueError: block 0_3_17 is bad")
    'ValueError: block #_#_# is bad'
    """
    return re.sub(r"\d+", "#", reason.strip().rpartition("\n")[2])
