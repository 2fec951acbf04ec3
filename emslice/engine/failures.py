"""Errors that only the engine raises."""

from __future__ import annotations

from emslice.errors import ConfigError, EmsliceError


class MemoryBudgetError(ConfigError):
    """A task needs more memory than a worker has."""


class NoWorkersError(EmsliceError):
    """Nobody is there to run the tasks."""

    transient = True


class StageAborted(EmsliceError):
    """Task after task failed alike and none succeeded, so the stage was stopped.

    ``key`` is the last of them and ``reason`` its traceback.
    """

    def __init__(self, stage: str, n_equal: int, key: str, reason: str) -> None:
        super().__init__(
            f"stage {stage!r} was stopped: {n_equal} tasks in a row failed alike and none "
            f"succeeded. What is done stays done; fix the cause and resume. Task {key!r}:\n"
            f"{reason.rstrip()}"
        )
        self.stage, self.key, self.reason = stage, key, reason
