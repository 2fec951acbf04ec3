"""Who is told how far a run has come."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from emslice.engine.coordinator import StageProgress

Advance = Callable[[int], None]


class Reporter(Protocol):
    """Bars on a terminal, lines for scripts, nothing at all."""

    def stage(self, name: str, voxels: int) -> AbstractContextManager[Advance]:
        """Enter a stage; yields what to call with voxels done."""


def in_voxels(advance: Advance, voxels: int) -> Callable[[StageProgress], None]:
    """What to tell of the progress of a stage, whose tasks together are so many voxels."""
    shown = 0

    def report(progress: StageProgress) -> None:
        nonlocal shown
        reached = voxels * progress.done // max(1, progress.total)
        advance(reached - shown)
        shown = reached

    return report
