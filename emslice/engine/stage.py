"""What a step must declare so that the engine can run it without knowing what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

Resource = Literal["CPU", "GPU"]

Process = Callable[[str], dict[str, Any]]
"""Does one task and returns its facts: a dict that JSON can hold."""


class Stage(Protocol):
    """One step, cut into tasks with a key each.

    The properties and ``waves`` are facts, readable without touching any data: the plan, the
    memory check and the forecast are made from them alone. Only ``prepare`` and ``open`` work.

    A stage pickles: its fields are URLs and numbers, and handles are born in ``open``.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Hash of parameters, inputs and code version: the same fingerprint, the same output."""

    @property
    def resource(self) -> Resource:
        """Kind of worker that a task needs."""

    @property
    def n_tasks(self) -> int:
        """Tasks in all waves together."""

    @property
    def peak_bytes(self) -> int:
        """Upper bound for one task, what ``open`` holds included."""

    @property
    def seconds_per_task(self) -> float:
        """Rough forecast; nothing but the plan depends on it."""

    def waves(self) -> Iterator[Iterable[str]]:
        """Keys of the tasks, lazily. Those of one wave may all run at once; waves go in order.

        No wave is begun after one in which a task was given up.
        """

    def prepare(self) -> None:
        """Create the outputs. Called before the first task; must be repeatable."""

    def open(self) -> AbstractContextManager[Process]:
        """Hold what all tasks on one worker share (a network, open volumes).

        Raises `UnfitWorkerError` if this worker would compute something else than the others: it
        gets no more tasks of the stage, and nobody is blamed.

        Yields ``process(key)``, which is deterministic, may run twice, even at the same time,
        writes only what the task owns, and returns after its data are durable.
        """
