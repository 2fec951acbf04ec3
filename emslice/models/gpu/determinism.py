"""The same kernels for the same shape, whatever other tasks of the process do meanwhile."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from emslice.errors import UnfitWorkerError

_lock = threading.Lock()
_n_asking = 0
_before = (False, False, True)


@contextmanager
def same_kernels() -> Iterator[None]:
    """Let cuDNN choose kernels by shape alone, none that add in any order, and no TF32.

    These are settings of the whole process, and several tasks predict at a time in one: the first
    that comes sets them, the last that leaves restores what was.

    Raises
    ------
    UnfitWorkerError
        The memory of a GPU ran short. Where its first choice finds no room cuDNN takes another,
        whose last bits differ, and keeps to it: this process must not go on.
    """
    n_short = _n_short()
    _enter()
    try:
        yield
    finally:
        _leave()
        if _n_short() > n_short:
            raise UnfitWorkerError(
                f"worker on {platform.node()} ran short of GPU memory, and some codes might "
                f"differ. Use the GPU for nothing else, or a smaller predict.tile, and resume."
            )


def _n_short() -> int:
    """How often memory could not be had on the current GPU."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return 0
    return int(torch.cuda.memory_stats().get("num_ooms", 0))


def _enter() -> None:
    global _n_asking, _before
    cudnn = torch.backends.cudnn
    with _lock:
        if not _n_asking:
            _before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
            cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
        _n_asking += 1


def _leave() -> None:
    global _n_asking
    cudnn = torch.backends.cudnn
    with _lock:
        _n_asking -= 1
        if not _n_asking:
            cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = _before
