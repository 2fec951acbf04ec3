"""What the engine needs of a ledger, and the smallest thing that gives it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from emslice.ledger.records import Attempt


class Records(Protocol):
    """Memory of attempts. Only the coordinator writes it."""

    def done_keys(self, fingerprint: str) -> set[str]:
        """Return the tasks of a stage that are done."""

    def quarantined_keys(self, fingerprint: str) -> set[str]:
        """Return the tasks that are left out until somebody releases them."""

    def record_many(self, attempts: Sequence[Attempt]) -> object:
        """Remember attempts, all or none. A done task stays done, whatever comes later."""

    def quarantine(self, fingerprint: str, key: str, reason: str) -> object:
        """Leave a task out from now on."""


class MemoryRecords:
    """Records that end with the process; for tests and for runs that are not kept.

    Parameters
    ----------
    keep_attempts
        Whether ``attempts`` lists every attempt, or only the keys are kept.
    """

    def __init__(self, keep_attempts: bool = True) -> None:
        self.attempts: list[Attempt] = []
        self.reasons: dict[str, dict[str, str]] = defaultdict(dict)
        self._keep_attempts = keep_attempts
        self._done: dict[str, set[str]] = defaultdict(set)

    def done_keys(self, fingerprint: str) -> set[str]:
        return set(self._done[fingerprint])

    def quarantined_keys(self, fingerprint: str) -> set[str]:
        return set(self.reasons[fingerprint])

    def record_many(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            if attempt.outcome == "done":
                self._done[attempt.fingerprint].add(attempt.key)
        if self._keep_attempts:
            self.attempts.extend(attempts)

    def quarantine(self, fingerprint: str, key: str, reason: str) -> None:
        self.reasons[fingerprint][key] = reason
