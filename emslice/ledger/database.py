"""The ledger: the truth about which tasks of a run are done, and what became of the others.

Guarantee: a record that `Ledger.record` returned from survives any crash, and is there whole or
not at all, because it is one durable transaction (``tables.py``). Data are flushed *before* their
record is written, so *done* implies *data are there*; data without a record are computed again.
Only the holder of the lease writes (``lease.py``); ``status.json`` is for everyone else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
)

from emslice.errors import EmsliceError
from emslice.ledger import lease as leases
from emslice.ledger.lease import Clock, Lease
from emslice.ledger.records import Attempt, StageCount
from emslice.ledger.tables import ATTEMPT, DONE, QUARANTINE, Database

PAGE = 5_000
"""Rows held in memory at a time where rows are streamed."""
LOOKUP = 500
"""Keys of one query: databases limit the number of parameters."""
FIELDS = [column for column in ATTEMPT.c if column.name != "id"]
FAILED = ("lost", "raised")
OUTCOMES = ("done", *FAILED)

Task = tuple[str, str]
"""(fingerprint, key)"""


class DeterminismError(EmsliceError):
    """A task done twice gave two different results."""

    def __init__(self, first: Attempt, second: Attempt) -> None:
        self.first, self.second = first.facts["digest"], second.facts["digest"]
        super().__init__(
            f"{first.stage} {first.key} was computed twice with different results: digest "
            f"{self.first} on {first.worker} ({first.started}), then {self.second} on "
            f"{second.worker} ({second.started}). Nothing of the second was recorded. Compare the "
            f"two workers' device, torch version and memory; the run cannot go on."
        )


class Ledger:
    """Records of tasks, by (fingerprint, key). A task is done, in quarantine, or neither.

    Threads may share it; they write in turn.
    """

    def __init__(self, url_or_path: str | Path, create: bool = True) -> None:
        """Open for reading; `lock` it to write.

        Raises
        ------
        ConfigError
            No such place, not a ledger, or one from a later emslice.
        """
        self.database = Database(url_or_path, create)
        self._lease: Lease | None = None

    def lock(self, owner: str, now: Clock = time.time, ttl_s: float = 60.0) -> Lease:
        """Become the one coordinator. From here on this ledger writes.

        Raises
        ------
        RunLockedError
            Another coordinator is alive.
        """
        self._lease = leases.acquire(self.database, owner, now, ttl_s)
        return self._lease

    def renew(self, now: Clock = time.time) -> Lease:
        """Keep the lease for another ``ttl_s``; call it several times within one.

        Raises
        ------
        FencedError
            Somebody else has taken over.
        """
        if self._lease is None:
            raise leases.FencedError("the ledger is not locked: there is nothing to renew")
        self._lease = leases.renew(self.database, self._lease, now)
        return self._lease

    def unlock(self) -> None:
        """Give the lease back, if it is still held."""
        lease, self._lease = self._lease, None
        if lease is not None:
            leases.release(self.database, lease)

    def close(self) -> None:
        """Close the database. The lease stays held: `unlock` is a statement, a crash is none."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def record(self, attempt: Attempt) -> None:
        """Write one attempt; durable when this returns. See `record_many`."""
        self.record_many([attempt])

    def record_many(self, attempts: Iterable[Attempt]) -> None:
        """Write attempts, all or none; durable when this returns.

        A task that was done before stays done as it was; one in quarantine that is done leaves it.

        Raises
        ------
        DeterminismError
            A task was done before, with another digest.
        FencedError
            This process does not hold the lease.
        """
        attempts = list(attempts)
        if not attempts:
            return
        with self._writing() as connection:
            done = _done_before(connection, attempts)
            last = connection.scalar(select(func.max(ATTEMPT.c.id))) or 0
            rows, marks, replaced = [], {}, []
            for number, attempt in enumerate(attempts, start=last + 1):
                rows.append(_as_row(number, attempt))
                if attempt.outcome != "done":
                    continue
                task = attempt.fingerprint, attempt.key
                if task in done:
                    if not _supersedes(attempt, done[task]):
                        continue
                    replaced.append(task)
                done[task], marks[task] = attempt, number
            connection.execute(insert(ATTEMPT), rows)
            _delete(connection, DONE, replaced)
            if marks:
                connection.execute(
                    insert(DONE),
                    [{"attempt_id": n, "fingerprint": f, "key": k} for (f, k), n in marks.items()],
                )
            _delete(connection, QUARANTINE, list(done))

    def is_done(self, fingerprint: str, key: str) -> bool:
        """True only if the task's data are on disk, durably."""
        query = select(DONE.c.key).where(*_is_task(DONE, fingerprint, key))
        with self.database.reading() as connection:
            return connection.scalar(query) is not None

    def done_keys(self, fingerprint: str) -> set[str]:
        """Every task that need not be run again."""
        return set(self.iter_done(fingerprint))

    def iter_done(self, fingerprint: str) -> Iterator[str]:
        """Keys that are done, each once, in constant memory.

        Read page by page, so that others write meanwhile. What is done when the first page is
        read comes (unless forgotten meanwhile); what is done later may.
        """
        query = select(DONE.c.key)
        return (row.key for row in self._pages(query, fingerprint))

    def count(self, fingerprint: str) -> StageCount:
        """How far a stage is, from indices alone.

        Notes
        -----
        Tens of milliseconds for a million tasks that are done.
        """
        with self.database.reading() as connection:
            done, failed = (
                connection.scalar(select(func.count()).where(table.c.fingerprint == fingerprint))
                for table in (DONE, QUARANTINE)
            )
            query = (
                select(ATTEMPT.c.outcome, func.count().label("number"))
                .where(ATTEMPT.c.fingerprint == fingerprint)
                .where(ATTEMPT.c.outcome.in_(("raised", "lost")))
                .group_by(ATTEMPT.c.outcome)
            )
            ended = {row.outcome: row.number for row in connection.execute(query)}
        return StageCount(done or 0, failed or 0, ended.get("raised", 0), ended.get("lost", 0))

    def facts(self, fingerprint: str, key: str) -> dict[str, Any] | None:
        """Facts of a task that is done; None if it is not."""
        query = select(ATTEMPT.c.facts).join(DONE).where(*_is_task(DONE, fingerprint, key))
        with self.database.reading() as connection:
            text = connection.scalar(query)
        return None if text is None else json.loads(text)

    def facts_of(self, fingerprint: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(key, facts) of every task that is done, streamed as `iter_done` does."""
        query = select(DONE.c.key, ATTEMPT.c.facts).join(ATTEMPT)
        return ((row.key, json.loads(row.facts)) for row in self._pages(query, fingerprint))

    def attempts(self, fingerprint: str, key: str) -> list[Attempt]:
        """Every attempt at a task, in the order of recording."""
        query = select(*FIELDS).where(*_is_attempt_at(fingerprint, key)).order_by(ATTEMPT.c.id)
        with self.database.reading() as connection:
            return [_as_attempt(row) for row in connection.execute(query)]

    def quarantine(self, fingerprint: str, key: str, reason: str) -> bool:
        """Give a task up until `release`, because of its last attempt; False if it is done.

        Raises
        ------
        ValueError
            No attempt at it has failed: there is nothing to show for it.
        """
        failed = select(func.max(ATTEMPT.c.id)).where(*_is_attempt_at(fingerprint, key, FAILED))
        done = select(DONE.c.key).where(*_is_task(DONE, fingerprint, key))
        with self._writing() as connection:
            if connection.scalar(done) is not None:
                return False
            attempt_id = connection.scalar(failed)
            if attempt_id is None:
                raise ValueError(f"{key} of {fingerprint}: in quarantine without a failed attempt")
            _delete(connection, QUARANTINE, [(fingerprint, key)])
            connection.execute(
                insert(QUARANTINE).values(
                    attempt_id=attempt_id, fingerprint=fingerprint, key=key, reason=_plain(reason)
                )
            )
        return True

    def failures(self, fingerprint: str) -> list[Attempt]:
        """For every task in quarantine, the attempt that brought it there; by key."""
        with self.database.reading() as connection:
            return _in_quarantine(connection, fingerprint)

    def reasons(self, fingerprint: str) -> dict[str, str]:
        """Why each task is in quarantine, by key."""
        query = select(QUARANTINE.c.key, QUARANTINE.c.reason)
        query = query.where(QUARANTINE.c.fingerprint == fingerprint).order_by(QUARANTINE.c.key)
        with self.database.reading() as connection:
            return {row.key: row.reason for row in connection.execute(query)}

    def release(self, fingerprint: str | None = None) -> list[Attempt]:
        """Let tasks in quarantine be tried again (of all stages by default); returns `failures`.

        Their attempts stay on record.
        """
        with self._writing() as connection:
            released = _in_quarantine(connection, fingerprint)
            _delete(connection, QUARANTINE, [(a.fingerprint, a.key) for a in released])
        return released

    def forget(self, fingerprint: str, keys: Iterable[str]) -> None:
        """Remove all that is known of tasks, as if never tried: their inputs have changed."""
        tasks = [(fingerprint, key) for key in keys]
        with self._writing() as connection:
            for table in (DONE, QUARANTINE, ATTEMPT):  # pointers before what they point at
                _delete(connection, table, tasks)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self.database.writing() as connection:
            leases.check(connection, self._lease)
            yield connection

    def _pages(self, query: Select[Any], fingerprint: str) -> Iterator[Row[Any]]:
        """Rows of a query on ``done`` in the order of keys, one short transaction a page."""
        query = query.where(DONE.c.fingerprint == fingerprint).order_by(DONE.c.key).limit(PAGE)
        page = query
        while True:
            with self.database.reading() as connection:
                rows = connection.execute(page).all()
            yield from rows
            if len(rows) < PAGE:
                return
            page = query.where(DONE.c.key > rows[-1].key)


def _is_task(table: Table, fingerprint: str, key: str) -> tuple[ColumnElement[bool], ...]:
    return table.c.fingerprint == fingerprint, table.c.key == key


def _is_attempt_at(
    fingerprint: str, key: str, outcomes: Sequence[str] = OUTCOMES
) -> tuple[ColumnElement[bool], ...]:
    # Naming the outcomes lets the index (fingerprint, outcome, key) find the key.
    return *_is_task(ATTEMPT, fingerprint, key), ATTEMPT.c.outcome.in_(outcomes)


def _delete(connection: Connection, table: Table, tasks: Sequence[Task]) -> None:
    statement = delete(table).where(
        table.c.fingerprint == bindparam("of"), table.c.key == bindparam("task")
    )
    if table is ATTEMPT:
        # As in `_is_attempt_at`; an IN of many values cannot be executed for many rows.
        statement = statement.where(or_(*(ATTEMPT.c.outcome == o for o in OUTCOMES)))
    if tasks:
        connection.execute(statement, [{"of": f, "task": k} for f, k in tasks])


def _done_before(connection: Connection, attempts: Sequence[Attempt]) -> dict[Task, Attempt]:
    """Of the tasks that attempts say are done: those done already, with the attempt that counts."""
    keys: dict[str, list[str]] = {}
    for attempt in attempts:
        if attempt.outcome == "done":
            keys.setdefault(attempt.fingerprint, []).append(attempt.key)
    found = {}
    for fingerprint, of_stage in keys.items():
        for start in range(0, len(of_stage), LOOKUP):
            query = select(*FIELDS).join(DONE).where(DONE.c.fingerprint == fingerprint)
            query = query.where(DONE.c.key.in_(of_stage[start : start + LOOKUP]))
            for row in connection.execute(query):
                found[fingerprint, row.key] = _as_attempt(row)
    return found


def _in_quarantine(connection: Connection, fingerprint: str | None) -> list[Attempt]:
    query = select(*FIELDS).join(QUARANTINE)
    if fingerprint is not None:
        query = query.where(QUARANTINE.c.fingerprint == fingerprint)
    rows = connection.execute(query.order_by(QUARANTINE.c.fingerprint, QUARANTINE.c.key))
    return [_as_attempt(row) for row in rows]


def _supersedes(second: Attempt, first: Attempt) -> bool:
    """Whether a repetition should stand for the task: if only it says what came out."""
    digests = first.facts.get("digest"), second.facts.get("digest")
    if None not in digests and digests[0] != digests[1]:
        raise DeterminismError(first, second)
    return digests[0] is None and digests[1] is not None


def _as_row(number: int, attempt: Attempt) -> dict[str, Any]:
    error = None if attempt.error is None else _plain(attempt.error)
    facts = json.dumps(dict(attempt.facts), sort_keys=True, separators=(",", ":"))
    return {"id": number, **vars(attempt), "error": error, "facts": facts}


def _as_attempt(row: Row[Any]) -> Attempt:
    return Attempt(**{**row._asdict(), "facts": json.loads(row.facts)})


def _plain(text: str) -> str:
    """Text that every database takes: a traceback may quote bytes that are no text."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
