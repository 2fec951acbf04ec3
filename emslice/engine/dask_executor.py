"""Tasks on Dask workers, in batches that last a while, a few batches ahead.

Dask carries messages and starts processes; it decides nothing. Every batch is sent to a worker
that we chose, so it is known what is lost with a worker, and nothing of it is moved elsewhere:
its tasks come back as lost. No graph, no retries, no stealing; scheduler and workers may die
with the run, because the records are elsewhere.
"""

from __future__ import annotations

import logging
import math
import pickle
import traceback
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any
from uuid import uuid4

from distributed import Client, Future, KilledWorker

from emslice.engine.batches import KINDS, BatchSize, KeySource
from emslice.engine.dask_local import LocalWorkers
from emslice.engine.dask_worker import SessionPlugin, run_batch
from emslice.engine.executor import Outcome, Result
from emslice.engine.failures import NoWorkersError
from emslice.engine.joint import resource_of
from emslice.engine.stage import Resource, Stage
from emslice.errors import UnfitWorkerError

logger = logging.getLogger(__name__)

BATCHES_PER_WORKER = 2
"""For each task that it does at a time: one runs and one waits, so that it never waits for us."""

POLL_S = 0.5
"""How often the scheduler is asked which workers there are."""


class DaskExecutor:
    """Runs batches of tasks on the workers of a Dask client; made by `local` or `connect`.

    Parameters
    ----------
    client
        Its workers must declare the resource that a stage asks for, ``CPU`` or ``GPU``.
    batch_s
        How long a batch should last. Batches start with one task and at most double.
    patience_s
        How long there may be no worker at all before the run fails; for ever if None.
    local
        The workers, if they are ours: `close` stops them.
    """

    def __init__(
        self,
        client: Client,
        batch_s: float = 5.0,
        patience_s: float | None = None,
        local: LocalWorkers | None = None,
    ) -> None:
        self._client, self._local = client, local
        self._batch_s, self._patience_s = batch_s, patience_s
        self._workers: dict[str, dict[str, int]] = {}  # address -> resources, and how much of them
        self._unfit: dict[str, UnfitWorkerError] = {}  # by address, for the stage at hand
        self._stage: Stage | None = None
        self._payload = b""
        self._size = BatchSize(batch_s, 1)
        client.register_plugin(SessionPlugin(deaf=local is not None))
        self._ask_for_workers()

    @classmethod
    def local(
        cls,
        n_workers: int,
        memory_bytes: int | None = None,
        n_gpus: int = 0,
        batch_s: float = 5.0,
        worker_ttl_s: float = 60.0,
        start_s: float = 60.0,
        patience_s: float = 300.0,
    ) -> DaskExecutor:
        """Start worker processes of one thread on this machine; `close` stops them.

        Parameters
        ----------
        n_workers, n_gpus
            Of the resource CPU; and of the resource GPU, one for each device.
        memory_bytes
            Of one worker: one that has more is killed, and its tasks are lost.
        worker_ttl_s
            A worker that is silent for so long is killed; Dask makes it 5 s at least.
        start_s
            A worker that takes so long to start is killed.
        """
        workers = LocalWorkers(n_workers, n_gpus, memory_bytes, worker_ttl_s, start_s)
        client = Client(workers.cluster, set_as_default=False)
        return cls(client, batch_s, patience_s, workers)

    @classmethod
    def connect(cls, address: str, batch_s: float = 5.0) -> DaskExecutor:
        """Use the workers of a scheduler that runs somewhere; `close` leaves them running."""
        return cls(Client(address, set_as_default=False), batch_s)

    @property
    def n_workers(self) -> int:
        self._ask_for_workers()
        return len(self._workers)

    def run(
        self, stage: Stage, keys: Iterable[str], alone: bool = False
    ) -> Generator[list[Outcome], None, None]:
        self._take(stage)
        source = KeySource(keys, lambda key: resource_of(stage, key))
        flying: dict[str, _Batch] = {}  # by the name of the future
        landed: SimpleQueue[str] = SimpleQueue()
        asked = staffed = monotonic()
        try:
            while True:
                for batch in self._next_batches(source, flying.values(), alone):
                    flying[str(batch.future.key)] = batch
                    batch.future.add_done_callback(lambda future: landed.put(str(future.key)))
                if flying:
                    staffed = monotonic()
                elif not (kinds := source.kinds()):
                    return
                else:
                    self._check_fitness(stage, kinds)
                    self._check_patience(stage, kinds, monotonic() - staffed)
                for name in _drain(landed, POLL_S):
                    if name in flying:  # else it was given up before
                        yield self._unpack(flying.pop(name), source)
                if monotonic() - asked > POLL_S:
                    self._ask_for_workers()
                    asked = monotonic()
                for name in [n for n, b in flying.items() if b.worker not in self._workers]:
                    yield self._give_up(flying.pop(name))
        finally:
            self._client.cancel([batch.future for batch in flying.values()])

    def close(self) -> None:
        self._client.close()
        if self._local:
            self._local.close()
            self._local = None

    def __enter__(self) -> DaskExecutor:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_fitness(self, stage: Stage, kinds: list[Resource]) -> None:
        """Raise if there are workers for what is left, and none that may have it."""
        for kind in kinds:
            able = [worker for worker, has in self._workers.items() if kind in has]
            if able and all(worker in self._unfit for worker in able):
                raise UnfitWorkerError(
                    f"stage {stage.name!r}: none of the {len(able)} workers can run it. "
                    f"{self._unfit[able[0]]}"
                )

    def _take(self, stage: Stage) -> None:
        if stage is not self._stage:
            self._unfit.clear()
            self._stage, self._payload = stage, pickle.dumps(stage)
            # A few batches for every worker, so that they end at about the same time.
            fair = stage.n_tasks // (4 * max(1, len(self._workers)))
            self._size = BatchSize(self._batch_s, max(1, fair))

    def _next_batches(
        self, source: KeySource, flying: Iterable[_Batch], alone: bool
    ) -> Iterator[_Batch]:
        """Send keys to the workers that have fewer batches than they may."""
        load = Counter(batch.worker for batch in flying)
        for kind in KINDS:
            room = {
                worker: 1 if alone else BATCHES_PER_WORKER * has[kind]
                for worker, has in self._workers.items()
                if kind in has and worker not in self._unfit
            }
            levels = range(max(room.values(), default=0))
            slots = [w for level in levels for w, n in room.items() if load[w] <= level < n]
            n_keys = len(slots) * (1 if alone else self._size.n)
            keys = source.take(n_keys, kind) if slots else []
            share = math.ceil(len(keys) / max(1, len(slots)))  # at the end, some for everyone
            for first, worker in zip(range(0, len(keys), share or 1), slots, strict=False):
                load[worker] += 1
                yield self._send(tuple(keys[first : first + share]), worker, kind)

    def _send(self, keys: tuple[str, ...], worker: str, kind: Resource) -> _Batch:
        assert self._stage is not None
        future = self._client.submit(
            run_batch,
            self._payload,
            keys,
            2 * self._batch_s,
            key=f"{self._stage.name}-{uuid4().hex}",
            workers=[worker],
            allow_other_workers=False,
            resources={kind: 1},
            retries=0,
            pure=False,
        )
        return _Batch(keys, worker, future)

    def _unpack(self, batch: _Batch, source: KeySource) -> list[Outcome]:
        """Outcomes of a batch that landed, one way or the other."""
        while True:
            try:
                if batch.future.status == "error":
                    batch.future.result()
                landed = self._client.sync(self._fetch, batch.future, callback_timeout=POLL_S)
                if not landed:  # cancelled
                    return self._give_up(batch)
                outcomes: list[Outcome] = landed[0]
            except TimeoutError:  # the worker died with the result, and Dask waits for it
                self._ask_for_workers()
                if batch.worker in self._workers:
                    continue
                return self._give_up(batch)
            except (KilledWorker, CancelledError):
                self._ask_for_workers()
                return self._give_up(batch)
            except UnfitWorkerError as error:  # its own, not the tasks': others do them
                logger.warning("%s", error)
                self._unfit[batch.worker] = error
                source.put_back(batch.keys)
                return []
            except Exception:  # Dask could not run it; the tasks have tracebacks of their own
                return batch.all("raised", traceback.format_exc())
            else:
                source.put_back(batch.keys[len(outcomes) :])
                if outcomes:
                    self._size.learn(len(outcomes), sum(o.seconds for o in outcomes))
                return outcomes

    async def _fetch(self, future: Future[Any]) -> list[Any]:
        # Not future.result: left waiting, it would report its own cancellation on stderr.
        fetched: list[Any] = await self._client.gather([future], errors="skip", asynchronous=True)
        return fetched

    def _give_up(self, batch: _Batch) -> list[Outcome]:
        self._client.cancel([batch.future])
        return batch.all("lost")

    def _ask_for_workers(self) -> None:
        self._workers = self._client.run_on_scheduler(_resources)
        if self._local:
            self._local.mend(self._workers)

    def _check_patience(self, stage: Stage, kinds: list[Resource], seconds: float) -> None:
        if self._patience_s is not None and seconds > self._patience_s:
            raise NoWorkersError(
                f"stage {stage.name!r} needs workers with the resource {' and '.join(kinds)}; for "
                f"{seconds:.0f} s there was none. Look into the workers' logs and resume."
            )


@dataclass(frozen=True)
class _Batch:
    """Keys on their way."""

    keys: tuple[str, ...]
    worker: str
    future: Future[Any]
    sent: datetime = field(default_factory=lambda: datetime.now(UTC))

    def all(self, outcome: Result, error: str | None = None) -> list[Outcome]:
        """The same outcome for every key."""
        seconds = (datetime.now(UTC) - self.sent).total_seconds()
        started = self.sent.isoformat(timespec="milliseconds")
        return [
            Outcome(key, outcome, self.worker, started, seconds, error=error) for key in self.keys
        ]


def _drain(queue: SimpleQueue[str], timeout_s: float) -> Iterator[str]:
    """What is in the queue, after waiting for the first."""
    try:
        yield queue.get(timeout=timeout_s)
        while True:
            yield queue.get_nowait()
    except Empty:
        return


def _resources(dask_scheduler: Any) -> dict[str, dict[str, int]]:
    """Resources that every worker declares; runs on the scheduler."""
    workers = dask_scheduler.workers.items()
    return {w: {name: int(n) for name, n in state.resources.items()} for w, state in workers}
