"""What the ledger holds: attempts, and how many of them ended how. Values only, no database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["done", "raised", "lost"]


@dataclass(frozen=True)
class Attempt:
    """One try at one task, with how it ended.

    ``done``: the task's data are durable. ``raised``: the task's own fault. ``lost``: the worker
    went away (killed, out of memory, walltime), which is nobody's verdict on the task.
    """

    stage: str
    fingerprint: str
    """Of the stage: parameters, inputs, code version. Tasks of other fingerprints are others."""
    key: str
    """The task within its stage: ``0_3_1``, position in the grid, zyx."""
    worker: str
    started: str
    """UTC, ISO 8601."""
    seconds: float
    peak_bytes: int
    outcome: Outcome
    error: str | None = None
    """Traceback, where there is one."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON values. ``digest`` is that of the task's output: done again, it must be the same."""


@dataclass(frozen=True)
class StageCount:
    """How far the tasks of one fingerprint are."""

    done: int = 0
    """Tasks."""
    failed: int = 0
    """Tasks in quarantine. Never done as well."""
    raised_attempts: int = 0
    """Attempts, whatever became of their tasks later."""
    lost_attempts: int = 0
    """Attempts, whatever became of their tasks later."""
