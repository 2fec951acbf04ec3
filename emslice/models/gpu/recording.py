"""Work on fixed memory recorded once as a CUDA graph, and then one launch.

Every graph of a process is recorded on one stream and takes its scratch memory from one pool:
only so do graphs share it. They may, since all of them are launched on the default stream, one
after the other; nothing lies in the pool from one launch to the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from emslice.models.gpu.determinism import condemn

alone = threading.RLock()
"""Who records, or makes what is recorded: kernels are compiled once, and entering a recording waits
for the device, which another recording forbids."""


def record(work: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """The same work on the same memory, as one launch on the default stream.

    Raises
    ------
    UnfitWorkerError
        It cannot be recorded; what is left of the attempt cannot be told, so this process must not
        go on.
    """
    with alone:
        pool, stream, _ = _room(device)
        current = torch.cuda.current_stream(device)
        stream.wait_stream(current)
        try:
            with torch.cuda.stream(stream):
                work()  # compiles kernels, and lets cuDNN choose its own
        finally:
            current.wait_stream(stream)  # also before memory of what failed is given to others
        return _captured(work, pool, stream).replay


def _captured(work: Callable[[], object], pool: Any, stream: Any) -> Any:
    graph = torch.cuda.CUDAGraph()
    try:
        # `graph` restores the stream only if nothing goes wrong at its end. Other tasks go on
        # meanwhile, and may take memory; what they freed before is not looked through for them.
        with (
            torch.cuda.stream(stream),
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            work()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise condemn(
            f"cannot record the network for its GPU: {error}. Resume; if it happens again, use "
            f"device cpu."
        ) from error
    return graph


def start_anew() -> None:
    """Let go of the pool: what it has is free once no graph is left."""
    with alone:
        _room.cache_clear()


@cache
def _room(device: torch.device) -> tuple[Any, Any, Any]:
    """Pool and stream of all recordings, and a first graph, which keeps the pool alive."""
    # Streams of another priority are no stream that copies of some task may be given.
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device, priority=-1)
    first = _captured(lambda: torch.zeros(1, device=device).add_(1), pool, stream)
    return pool, stream, first
