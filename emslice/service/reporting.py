"""Who is told how far a run has come."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

Advance = Callable[[int], None]


class Reporter(Protocol):
    """Bars on a terminal, lines for scripts, nothing at all."""

    def stage(self, name: str, voxels: int) -> AbstractContextManager[Advance]:
        """Enter a stage; yields what to call with voxels done."""
