"""Who runs the tasks: the contract between the coordinator and whatever owns the workers.

An executor knows no policy: it tries every key that it is given once and says how that went.
Retries, quarantine and records are the coordinator's.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from emslice.engine.stage import Stage

Result = Literal["done", "raised", "lost"]


@dataclass(frozen=True)
class Outcome:
    """How one attempt at one task ended."""

    key: str

    outcome: Result
    """``lost``: the worker is gone, or had too little memory; the task may be blameless."""

    worker: str
    """Address of the process."""

    started: str
    """UTC, ISO 8601. Of a lost task: when it was sent."""

    seconds: float

    peak_bytes: int = 0
    """Largest resident size of the worker so far (VmHWM); 0 if lost."""

    error: str | None = None
    """Traceback, if raised or out of memory."""

    facts: dict[str, Any] = field(default_factory=dict)
    """What the task says about itself, if done."""


class Executor(Protocol):
    """Workers on this machine, on a cluster or in a queue."""

    @property
    def n_workers(self) -> int:
        """Workers that are there now; with a queueing system this changes."""

    def run(
        self, stage: Stage, keys: Iterable[str], alone: bool = False
    ) -> Generator[list[Outcome], None, None]:
        """Try every key once; yield one outcome for each, as they come.

        What comes back together is yielded together, so that it is recorded in one go. Keys are
        taken lazily, a bounded window ahead of the outcomes. With ``alone`` no task shares its
        worker with another one, running or waiting: if the worker is lost, the task was the only
        one there. Closing the generator abandons what still runs.

        Raises `UnfitWorkerError` if there are workers and the stage can be opened on none.
        """

    def close(self) -> None:
        """Let go of the workers; repeatable."""
