"""The worker's side: a stage held open, one key after the other, nothing raised.

Both executors run tasks through here, so that they cannot differ.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from emslice.engine.executor import Outcome, Result
from emslice.engine.stage import Process, Stage
from emslice.errors import UnfitWorkerError

logger = logging.getLogger(__name__)


class Session:
    """What one worker has open: nothing, or one stage.

    Parameters
    ----------
    worker
        Its name, for the records.
    """

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._stack = ExitStack()
        self._token: object = None
        self._process: Process | None = None

    def attempt(self, key: str, token: object, load: Callable[[], Stage]) -> Outcome:
        """Do one task. Whatever ``open`` or ``process`` raise becomes the outcome.

        But `UnfitWorkerError` is raised: it is the worker's, not the task's.

        ``token`` says which stage: while it is equal, the stage stays open. A fingerprint would
        not do, because it says nothing of where the output goes.
        """
        started = datetime.now(UTC).isoformat(timespec="milliseconds")
        start = perf_counter()
        error, facts = None, {}
        result: Result = "done"
        try:
            facts = self._open(token, load)(key)
            json.dumps(facts)  # here, where it is charged to the task, not in the ledger
        except UnfitWorkerError:
            raise
        except Exception as raised:
            error, facts = traceback.format_exc(), {}
            result = "lost" if is_out_of_memory(raised) else "raised"
        return Outcome(
            key=key,
            outcome=result,
            worker=self._worker,
            started=started,
            seconds=perf_counter() - start,
            peak_bytes=peak_bytes(),
            error=error,
            facts=facts,
        )

    def _open(self, token: object, load: Callable[[], Stage]) -> Process:
        if self._process is None or token != self._token:
            self.close()
            self._process = self._stack.enter_context(load().open())
            self._token = token
        return self._process

    def close(self) -> None:
        """Close the stage that is open, if any."""
        self._process = None
        try:
            self._stack.close()
        except Exception:  # its tasks are recorded: the next stage must not pay for this
            logger.warning("a stage failed to close on %s", self._worker, exc_info=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it was for want of memory, of the processor or of a GPU (torch is not imported)."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def peak_bytes() -> int:
    """Largest resident size of this process so far.

    Not ``ru_maxrss``, which Linux hands down from the parent through fork and exec.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise KeyError("/proc/self/status has no VmHWM")
