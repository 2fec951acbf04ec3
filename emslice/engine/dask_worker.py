"""What runs inside a Dask worker: a session for each batch at a time, kept between batches."""

from __future__ import annotations

import pickle
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

from emslice.engine.executor import Outcome
from emslice.engine.session import Session

NAME = "emslice-session"


class SessionPlugin(WorkerPlugin):
    """Keeps a worker's sessions, and closes them when the worker closes.

    A worker runs as many batches at a time as it has of a resource: mostly one.

    Parameters
    ----------
    deaf
        Ignore Ctrl-C, which a terminal sends to local workers too: the coordinator stops them.
    """

    name = NAME

    def __init__(self, deaf: bool = False) -> None:
        self._deaf = deaf

    def setup(self, worker: Worker) -> None:
        self._closing = False
        self._address = worker.address
        self._lock = threading.Lock()
        self._free: list[Session] = []
        if self._deaf and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def teardown(self, worker: Worker) -> None:
        # Never wait for a task here: this thread keeps the worker's connections.
        with self._lock:
            self._closing = True
            free, self._free = self._free, []
        for session in free:
            session.close()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """A session that nobody else uses meanwhile."""
        with self._lock:
            session = self._free.pop() if self._free else Session(self._address)
        try:
            yield session
        finally:
            with self._lock:
                if not self._closing:
                    self._free.append(session)

    def run(self, payload: bytes, keys: tuple[str, ...], limit_s: float) -> list[Outcome]:
        """Do the tasks of a batch that can be begun within ``limit_s``: the first ones of it."""
        outcomes: list[Outcome] = []
        with self._session() as session:
            deadline = monotonic() + limit_s
            for key in keys:
                if self._closing or (outcomes and monotonic() > deadline):
                    break
                outcomes.append(session.attempt(key, payload, lambda: pickle.loads(payload)))
        return outcomes


def run_batch(payload: bytes, keys: tuple[str, ...], limit_s: float) -> list[Outcome]:
    """Do tasks of a pickled stage, one after the other, on the worker that calls this.

    The stage comes pickled so that Dask looks neither into it nor for keys of its own.
    """
    plugin: Any = get_worker().plugins[NAME]
    outcomes: list[Outcome] = plugin.run(payload, keys, limit_s)
    return outcomes
