"""The coordinator's lease: one coordinator a run, and none that does not know it was replaced.

Every lease has a fencing number, higher than all before it. A lease alone guarantees nothing: its
holder may be stopped past its end, wake up and write. So every write compares its number with the
highest given out, in its own transaction: writes of one lease all lie before the next is given.
Clocks decide only who may try; that two never write rests on the number, not on any clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, select, update

from emslice.errors import ConfigError, EmsliceError
from emslice.ledger.process import Process, this_process
from emslice.ledger.tables import LEASE, Database

Clock = Callable[[], float]
"""Seconds since 1970."""


class RunLockedError(ConfigError):
    """Another coordinator works on the run."""


class FencedError(EmsliceError):
    """The writer does not hold the lease, or holds it no longer. Nothing was written."""


@dataclass(frozen=True)
class Lease:
    """The right to write a ledger."""

    number: int
    """Fencing number."""
    owner: str
    since: float
    """Seconds since 1970."""
    expires: float
    """Seconds since 1970. Others may take over from then on."""
    ttl_s: float


def acquire(
    database: Database,
    owner: str,
    now: Clock = time.time,
    ttl_s: float = 60.0,
    holder: Process | None = None,
) -> Lease:
    """Lease for ``holder`` (this process), with a number above every earlier one.

    It is free if nobody holds it, if it expired, or if its holder ran on this machine and is gone.

    Raises
    ------
    RunLockedError
        A live lease exists.
    """
    holder = holder or this_process()
    with database.writing() as connection:
        row = _row(connection)
        at = now()
        if row.owner is not None and row.expires > at and not _process(row).is_gone:
            raise RunLockedError(_refusal(database.place, row, at))
        lease = Lease(row.number + 1, owner, at, at + ttl_s, ttl_s)
        _set(
            connection,
            number=lease.number,
            owner=owner,
            since=at,
            expires=lease.expires,
            host=holder.host,
            machine=holder.machine,
            pid=holder.pid,
            started=holder.started,
        )
    return lease


def renew(database: Database, lease: Lease, now: Clock = time.time) -> Lease:
    """The same lease for another ``ttl_s`` from now, also if it expired and nobody took it.

    Raises
    ------
    FencedError
        Somebody took it.
    """
    with database.writing() as connection:
        check(connection, lease)
        renewed = replace(lease, expires=now() + lease.ttl_s)
        _set(connection, expires=renewed.expires)
    return renewed


def release(database: Database, lease: Lease) -> None:
    """Let others have it at once; nothing if it is another's by now."""
    with database.writing() as connection:
        row = _row(connection)
        if row.number == lease.number and row.owner is not None:
            _set(connection, owner=None)


def check(connection: Connection, lease: Lease | None) -> None:
    """Raise `FencedError` unless the lease is the newest and held; for use within a write."""
    if lease is None:
        raise FencedError("the ledger was opened for reading; lock it first, then write")
    row = _row(connection)
    if row.number == lease.number and row.owner is not None:
        return
    if row.number == lease.number:
        raise FencedError(f"lease {lease.number} of {lease.owner} was given back; lock again")
    raise FencedError(
        f"{lease.owner} held lease {lease.number} until {_show(lease.expires)} and was replaced: "
        f"lease {row.number} went to {row.owner or 'another'} ({row.host}, pid {row.pid}). "
        f"Nothing was written; this process must stop."
    )


def _row(connection: Connection) -> Row[Any]:
    # The row lock makes writers take turns on servers that would let them run side by side.
    return connection.execute(select(LEASE).where(LEASE.c.id == 1).with_for_update()).one()


def _set(connection: Connection, **values: object) -> None:
    connection.execute(update(LEASE).where(LEASE.c.id == 1).values(**values))


def _process(row: Row[Any]) -> Process:
    return Process(row.host, row.machine, row.pid, row.started)


def _refusal(place: str, row: Row[Any], at: float) -> str:
    return (
        f"{place}: the run is held by {row.owner} ({row.host}, pid {row.pid}) since "
        f"{_show(row.since)}, at least until {_show(row.expires)} ({row.expires - at:.0f} s from "
        f"now). Wait for it or stop it there; if its host is dead, try again after that time."
    )


def _show(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
