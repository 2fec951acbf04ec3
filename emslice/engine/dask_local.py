"""Dask workers on this machine: processes on the loopback interface, gone when closed."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from threading import Timer

import dask
from distributed import LocalCluster

PATIENCE_S = 15.0
"""How long workers may take to close before they are killed."""


def start_workers(
    n_workers: int,
    memory_bytes: int | None,
    resources: Iterable[str],
    worker_ttl_s: float,
) -> tuple[LocalCluster, tempfile.TemporaryDirectory[str]]:
    """Start a scheduler in this process and workers with one thread each.

    A worker above ``memory_bytes`` is killed; one that is silent for ``worker_ttl_s`` (Dask
    makes it 5 s at least) is given up and killed. Both are started anew. Dask retries nothing.

    Returns
    -------
    The cluster, and a scratch folder to be removed after it is closed.
    """
    scratch = tempfile.TemporaryDirectory(prefix="emslice-workers-", ignore_cleanup_errors=True)
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.work-stealing": False,
        "distributed.scheduler.worker-ttl": f"{worker_ttl_s}s",
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": 1.0,
        "distributed.worker.profile.enabled": False,
    }
    with dask.config.set(settings):
        cluster = LocalCluster(
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
            resources=dict.fromkeys(resources, 1),
            local_directory=scratch.name,
        )
    return cluster, scratch


def stop_workers(cluster: LocalCluster, scratch: tempfile.TemporaryDirectory[str]) -> None:
    """Close the cluster; a worker that hangs or is stopped is killed."""
    pids = [nanny.pid for nanny in cluster.workers.values() if getattr(nanny, "pid", None)]
    killer = Timer(PATIENCE_S, _kill, [pids])
    killer.start()
    try:
        cluster.close(timeout=2 * PATIENCE_S)
    finally:
        killer.cancel()
        killer.join()
        scratch.cleanup()


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
