"""A run whose merges are all there, held against other coordinators while they are read."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emslice.errors import ConfigError, EmsliceError
from emslice.ledger.database import Ledger
from emslice.ops.linkage import integer_threshold
from emslice.service.again import plan_again, read_record
from emslice.service.mending import can_be_left_out, holes_of, stale_tasks
from emslice.service.plan import Plan
from emslice.service.stages import Stages, stages_of
from emslice.service.supervision import LEASE_S
from emslice.volumes.places import local_path


@dataclass(frozen=True)
class HeldRun:
    """A run that is agglomerated and that nobody else works on."""

    plan: Plan
    stages: Stages
    ledger: Ledger


@contextmanager
def hold_run(
    folder: str | Path,
    threshold: float | None = None,
    workers: int | None = None,
    min_size: int | None = None,
) -> Iterator[HeldRun]:
    """Run of a folder, at another threshold, with other dust; nothing is written but the lease.

    Raises
    ------
    ConfigError
        No run, a threshold that its merges do not reach, merges that are missing or of waterz,
        or an input that has changed since.
    RunLockedError
        The run is being worked on.
    """
    folder = local_path(folder)
    record = read_record(folder)
    _check_ordered(folder, record)
    options: dict[str, Any] = {"workers": workers, "dust.min_size": min_size}
    options.update(_options(folder, record, threshold))
    plan = plan_again(folder, options=options)
    with Ledger(folder / "ledger.sqlite", create=False) as ledger, _lease(ledger):
        stages = stages_of(plan, holes_of(stages_of(plan), ledger))
        _check_merged(folder, record, stages, ledger)
        yield HeldRun(plan, stages, ledger)


def _check_ordered(folder: Path, record: dict[str, Any]) -> None:
    """Raise `ConfigError` unless the merges of a run have scores of their own."""
    if record["config"]["agglomeration"].get("method") == "waterz":
        raise ConfigError(
            f"agglomeration.method: RUN {folder} was merged by waterz, which knows no merge but "
            f"those at its threshold. Merge again at another one: emslice resume {folder} "
            f"--threshold T; or exactly: --set agglomeration.method=exact"
        )


def _options(folder: Path, record: dict[str, Any], threshold: float | None) -> dict[str, float]:
    if threshold is None:
        return {}
    integer_threshold(threshold)  # raises
    lowest = record["config"]["agglomeration"]["lowest_threshold"]
    if threshold < lowest:
        raise ConfigError(
            f"agglomeration.threshold: {threshold:g} is below the lowest threshold that RUN "
            f"{folder} kept merges for, {lowest:g} (agglomeration.lowest_threshold). Choose "
            f"{lowest:g} or more, or agglomerate again: emslice resume {folder} --threshold "
            f"{threshold:g} --set agglomeration.lowest_threshold={threshold:g}"
        )
    # Left to its default it would follow the threshold, and ask for another agglomeration.
    return {"agglomeration.threshold": threshold, "agglomeration.lowest_threshold": lowest}


@contextmanager
def _lease(ledger: Ledger) -> Iterator[None]:
    """Hold the lease, and keep it for as long as it takes."""
    ledger.lock(f"{socket.gethostname()}:{os.getpid()}", ttl_s=LEASE_S)
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(LEASE_S / 4):
            with suppress(EmsliceError):  # who writes a result asks again
                ledger.renew()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        ledger.unlock()


def _check_merged(folder: Path, record: dict[str, Any], stages: Stages, ledger: Ledger) -> None:
    """Raise `ConfigError` unless every task whose result is read has a record."""
    known = record.get("stages") or {}
    for stage in (stages.fragments, stages.stitch, stages.agglomerate):
        count = ledger.count(stage.fingerprint)
        done = count.done - len(stale_tasks(stages, stage, ledger))
        failed = ledger.reasons(stage.fingerprint)
        if done + count.failed == stage.n_tasks and can_be_left_out(stages, stage, failed):
            continue
        if known.get(stage.name, {}).get("fingerprint", stage.fingerprint) != stage.fingerprint:
            raise ConfigError(
                f"RUN {folder}: its input or checkpoint is not what it was made from any more. "
                f"Put it back, or make the run anew: emslice resume {folder}"
            )
        raise ConfigError(
            f"RUN {folder}: {done} of {stage.n_tasks} tasks of stage {stage.name!r} are done; "
            f"all are needed. Finish the run first: emslice resume {folder}"
        )
