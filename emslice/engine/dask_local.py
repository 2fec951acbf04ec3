"""Dask workers on this machine: processes on the loopback interface, gone when closed."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile
from collections.abc import Container
from contextlib import suppress
from threading import Timer
from time import monotonic
from typing import Any

import dask
from distributed import LocalCluster, Status

logger = logging.getLogger(__name__)

TASKS_PER_GPU = 3
"""At a time, in one process: one is read, one is on the device, one is written."""

KILL_S = 8.0
"""How long workers may take to close before they are killed; Dask itself kills after 4 s."""


class LocalWorkers:
    """A scheduler in this process, and worker processes: of one thread, those of GPUs of three.

    A worker that dies, has too much memory or is silent is started anew. Dask retries nothing.

    Parameters
    ----------
    n_workers, n_gpus
        How many have the resource CPU, and GPU; each of the latter sees one device.
    memory_bytes
        Of one worker; unlimited if None.
    ttl_s
        How long a worker may be silent before it is killed; Dask makes it 5 s at least.
    start_s
        How long a worker may take to start before it is killed.
    """

    def __init__(
        self,
        n_workers: int,
        n_gpus: int,
        memory_bytes: int | None,
        ttl_s: float,
        start_s: float,
    ) -> None:
        self._n_workers, self._start_s = n_workers + n_gpus, start_s
        self._nannies: set[Any] = set()
        self._absent: dict[str, tuple[int | None, float]] = {}  # name -> (pid, since when)
        self._scratch = tempfile.TemporaryDirectory(
            prefix="emslice-workers-", ignore_cleanup_errors=True
        )
        # Held until close: Dask looks some of them up when a worker is lost.
        self._settings = dask.config.set(
            {
                "distributed.scheduler.allowed-failures": 0,
                "distributed.scheduler.work-stealing": False,
                "distributed.scheduler.worker-ttl": f"{ttl_s}s",
                # Dask would close a worker for good that takes 15 s to come back.
                "distributed.deploy.lost-worker-timeout": "1000 days",
                "distributed.worker.memory.target": False,
                "distributed.worker.memory.spill": False,
                "distributed.worker.memory.pause": False,
                "distributed.worker.memory.terminate": 1.0,
                "distributed.worker.profile.enabled": False,
            }
        )
        self.cluster = LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            # Left out, Dask would take port 8787, or warn that it is taken.
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",  # older Dask: all interfaces otherwise
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL + 1,
            memory_limit=memory_bytes or 0,
            resources={"CPU": 1},
            local_directory=self._scratch.name,
        )
        if n_gpus:
            self._add_gpus(n_gpus)
        self._nannies.update(self.cluster.workers.values())

    def _add_gpus(self, n: int) -> None:
        """Workers beside the others, one a device, which CUDA numbers anew in each."""
        spec, devices = self.cluster.new_spec, visible_devices(n)
        for i in range(n):
            options = {
                **spec["options"],
                "name": f"gpu-{i}",
                "nthreads": TASKS_PER_GPU,
                "resources": {"GPU": TASKS_PER_GPU},
                "env": {"CUDA_VISIBLE_DEVICES": devices[i]},
            }
            self.cluster.worker_spec[f"gpu-{i}"] = {**spec, "options": options}
        self.cluster.sync(self.cluster._correct_state)

    def mend(self, present: Container[str]) -> None:
        """Help workers that do not come back by themselves.

        Parameters
        ----------
        present
            Addresses of the workers that the scheduler knows.
        """
        self.cluster.sync(self._mend, present)

    async def _mend(self, present: Container[str]) -> None:
        for name, nanny in list(self.cluster.workers.items()):
            if nanny.worker_address in present:
                self._absent.pop(name, None)
                continue
            pid, since = self._absent.setdefault(name, (nanny.pid, monotonic()))
            if pid != nanny.pid:  # it was started anew meanwhile
                self._absent[name] = (nanny.pid, monotonic())
            elif monotonic() - since > self._start_s:
                del self._absent[name]
                if pid is not None and nanny.status == Status.running:
                    _kill(pid)  # its nanny starts another
                else:
                    del self.cluster.workers[name]
                    self._closing = asyncio.ensure_future(nanny.close())
        if len(self.cluster.workers) < self._n_workers:
            self.cluster.scale(self._n_workers)
        self._nannies.update(self.cluster.workers.values())

    def close(self) -> None:
        """Stop everything; a worker that hangs or is stopped is killed."""
        self._nannies.update(self.cluster.workers.values())
        killer = Timer(KILL_S, self._kill_all)
        killer.start()
        try:
            self.cluster.close(timeout=3 * KILL_S)
        except TimeoutError:
            logger.warning("the Dask cluster did not close in %.0f s", 3 * KILL_S)
        finally:
            killer.cancel()
            killer.join()
            self._kill_all()
            self._settings.__exit__(None, None, None)
            self._scratch.cleanup()

    def _kill_all(self) -> None:
        for nanny in self._nannies:
            if nanny.pid is not None:
                _kill(nanny.pid)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def visible_devices(n: int) -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` is in each of n workers: its part of what it is here."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in given.split(",") if name.strip()]
    return (names or [str(i) for i in range(n)])[:n]
