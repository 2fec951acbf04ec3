"""Several stages at once: one makes what the next takes, and neither gets far ahead.

To the coordinator and the workers a joint stage is a stage like any other; its records are those
of its parts, so a run may go on with the parts one after the other, or the other way round.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from emslice.engine.coordinator import StageProgress, StageResult
from emslice.engine.records import Records
from emslice.engine.stage import Process, Resource, Stage
from emslice.ledger.records import Attempt

Task = tuple[str, str]
"""Name of a part, and the key of one of its tasks."""


class Joint(ABC):
    """Stages of different names as one; it pickles if they do."""

    peak_bytes: int
    """Upper bound for one task, with all parts open."""

    @property
    @abstractmethod
    def parts(self) -> tuple[Stage, ...]:
        """The stages; none of them has a colon in its name."""

    @abstractmethod
    def tasks(self) -> Iterator[Iterable[Task]]:
        """Every task of every part, in waves, lazily: what a task takes, earlier waves make."""

    @property
    def name(self) -> str:
        """Names of the parts.

        >>> key_of_part("predict", "0_1_2"), task_of("predict:0_1_2")
        ('predict:0_1_2', ('predict', '0_1_2'))
        """
        return "+".join(part.name for part in self.parts)

    @property
    def fingerprint(self) -> str:
        """Fingerprints of the parts."""
        return "+".join(part.fingerprint for part in self.parts)

    @property
    def resource(self) -> Resource:
        """What most tasks need; `resource_of` knows each."""
        return "CPU"

    @property
    def n_tasks(self) -> int:
        """Of all parts."""
        return sum(part.n_tasks for part in self.parts)

    @property
    def seconds_per_task(self) -> float:
        """Of the slowest part."""
        return max(part.seconds_per_task for part in self.parts)

    def waves(self) -> Iterator[Iterable[str]]:
        for wave in self.tasks():
            yield (key_of_part(*task) for task in wave)

    def prepare(self) -> None:
        for part in self.parts:
            part.prepare()

    @contextmanager
    def open(self) -> Iterator[Process]:
        """Open each part when its first task comes."""
        parts, opened = {part.name: part for part in self.parts}, dict[str, Process]()
        with ExitStack() as stack:

            def process(key: str) -> dict[str, Any]:
                name, own = task_of(key)
                if name not in opened:
                    part: AbstractContextManager[Process] = parts[name].open()
                    opened[name] = stack.enter_context(part)
                return opened[name](own)

            yield process


def key_of_part(name: str, key: str) -> str:
    """Name of a part's task in the joint stage."""
    return f"{name}:{key}"


def task_of(key: str) -> Task:
    """Part and task from the name in the joint stage."""
    name, _, own = key.partition(":")
    return name, own


def parts_of(stage: Stage) -> tuple[Stage, ...]:
    """What has records of its own: the parts of a joint stage, any other stage itself."""
    return stage.parts if isinstance(stage, Joint) else (stage,)


def resource_of(stage: Stage, key: str) -> Resource:
    """Kind of worker that a task needs."""
    if not isinstance(stage, Joint):
        return stage.resource
    name, _ = task_of(key)
    return next(part.resource for part in stage.parts if part.name == name)


class JointRecords:
    """Records of a joint stage, kept as those of its parts.

    Parameters
    ----------
    joint
        The stage.
    records
        Where those of the parts go.
    """

    def __init__(self, joint: Joint, records: Records) -> None:
        self._records = records
        self._parts = {part.name: _Part(part, records) for part in joint.parts}

    def done_keys(self, _: str) -> set[str]:
        """Tasks of all parts that are done."""
        return self._named(self._records.done_keys)

    def quarantined_keys(self, _: str) -> set[str]:
        """Tasks of all parts that are left out."""
        return self._named(self._records.quarantined_keys)

    def record_many(self, attempts: Sequence[Attempt]) -> None:
        """Remember attempts, each with its own part."""
        own = []
        for attempt in attempts:
            name, key = task_of(attempt.key)
            part = self._parts[name]
            part.count(attempt)
            fingerprint = part.stage.fingerprint
            own.append(replace(attempt, stage=name, fingerprint=fingerprint, key=key))
        self._records.record_many(own)

    def quarantine(self, _: str, key: str, reason: str) -> None:
        """Leave a task of a part out."""
        name, own = task_of(key)
        self._parts[name].quarantined.add(own)
        self._records.quarantine(self._parts[name].stage.fingerprint, own, reason)

    def progress(self, whole: StageProgress) -> Iterator[StageProgress]:
        """Where each part stands; what runs is said of the first that is not at its end."""
        running = whole.running
        for name, part in self._parts.items():
            n_done, n_failed = part.n_before + part.n_done, len(part.quarantined)
            yield StageProgress(name, part.stage.n_tasks, n_done, n_failed, running)
            if n_done + n_failed < part.stage.n_tasks:
                running = 0

    def results(self, whole: StageResult) -> Iterator[StageResult]:
        """How each part ended; the time is shared out by what their tasks took together."""
        total = sum(part.seconds for part in self._parts.values())
        for name, part in self._parts.items():
            yield StageResult(
                name=name,
                total=part.stage.n_tasks,
                done_before=part.n_before,
                done_now=part.n_done,
                quarantined=tuple(sorted(part.quarantined)),
                n_raised=part.n_raised,
                n_lost=part.n_lost,
                seconds=whole.seconds * part.seconds / total if total else 0.0,
                peak_bytes=part.peak_bytes,
            )

    def _named(self, keys_of: Callable[[str], set[str]]) -> set[str]:
        return {
            key_of_part(name, key)
            for name, part in self._parts.items()
            for key in keys_of(part.stage.fingerprint)
        }


class _Part:
    """What is known of one part."""

    def __init__(self, stage: Stage, records: Records) -> None:
        self.stage = stage
        self.n_before = len(records.done_keys(stage.fingerprint))
        self.quarantined = set(records.quarantined_keys(stage.fingerprint))
        self.n_done = self.n_raised = self.n_lost = self.peak_bytes = 0
        self.seconds = 0.0

    def count(self, attempt: Attempt) -> None:
        """Take an attempt into account."""
        self.n_done += attempt.outcome == "done"
        self.n_raised += attempt.outcome == "raised"
        self.n_lost += attempt.outcome == "lost"
        self.seconds += attempt.seconds
        self.peak_bytes = max(self.peak_bytes, attempt.peak_bytes)
