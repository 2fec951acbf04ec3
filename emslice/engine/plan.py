"""What a run will take, from what its stages declare: nothing is opened, nothing runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from emslice.engine.failures import MemoryBudgetError
from emslice.engine.stage import Resource, Stage
from emslice.units import human_bytes


@dataclass(frozen=True)
class StagePlan:
    """One row of the plan."""

    name: str
    resource: Resource
    n_tasks: int
    peak_bytes: int
    """Of one task, upper bound."""
    total_bytes: int
    """Of all that run at once."""
    seconds: float
    """Forecast, with every worker busy."""


def plan_stages(stages: Iterable[Stage], n_workers: int) -> list[StagePlan]:
    """Return one row a stage."""
    return [
        StagePlan(
            name=stage.name,
            resource=stage.resource,
            n_tasks=stage.n_tasks,
            peak_bytes=stage.peak_bytes,
            total_bytes=stage.peak_bytes * min(n_workers, stage.n_tasks),
            seconds=stage.seconds_per_task * -(-stage.n_tasks // n_workers),
        )
        for stage in stages
    ]


def format_plan(rows: Iterable[StagePlan]) -> str:
    """Table for people; the last line is the whole run, stage after stage.

    >>> print(format_plan([StagePlan("predict", "GPU", 1200, 2**31, 2**33, 90.0)]))
    stage        on        tasks  per task  at once     time
    predict      GPU       1,200   2.0 GiB  8.0 GiB      90 s
    total                  1,200            8.0 GiB      90 s
    """
    rows = list(rows)
    lines = ["stage        on        tasks  per task  at once     time"]
    for row in rows:
        lines.append(
            f"{row.name:<12} {row.resource:<3} {row.n_tasks:>11,} {human_bytes(row.peak_bytes):>9}"
            f" {human_bytes(row.total_bytes):>8} {_duration(row.seconds):>9}"
        )
    most = max((row.total_bytes for row in rows), default=0)
    lines.append(
        f"{'total':<16} {sum(row.n_tasks for row in rows):>11,} {'':>9} {human_bytes(most):>8}"
        f" {_duration(sum(row.seconds for row in rows)):>9}"
    )
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    """Time in one unit.

    >>> [_duration(s) for s in (0.4, 119, 90 * 60, 40 * 3600)]
    ['0 s', '119 s', '90 min', '40 h']
    """
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def check_budget(stages: Iterable[Stage], memory_bytes: int, n_workers: int) -> None:
    """Raise `MemoryBudgetError` unless one task of every stage fits on every worker at once.

    Parameters
    ----------
    memory_bytes
        Of all workers together.
    """
    allowed = memory_bytes // n_workers
    for stage in sorted(stages, key=lambda stage: -stage.peak_bytes):
        if stage.peak_bytes > allowed:
            fitting = memory_bytes // stage.peak_bytes
            remedy = f"set workers to {fitting}" if fitting else "use a machine with more memory"
            raise MemoryBudgetError(
                f"stage {stage.name!r} needs {human_bytes(stage.peak_bytes)} per task but a "
                f"worker has {human_bytes(allowed)} ({stage.peak_bytes / max(1, allowed):.1f}x "
                f"too much: {human_bytes(memory_bytes)} for {n_workers} workers). "
                f"Make block smaller, or {remedy}."
            )
