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
_n_short_before = 0
_unfit: str | None = None
"""Why this process must predict nothing any more."""


@contextmanager
def same_kernels() -> Iterator[None]:
    """Let cuDNN choose kernels by shape alone, none that add in any order, and no TF32.

    These are settings of the whole process, and several tasks predict at a time in one: the first
    that comes sets them, the last that leaves restores what was.

    Raises
    ------
    UnfitWorkerError
        The memory of a GPU ran short, in this task or another one. Where its first choice finds no
        room cuDNN takes another, whose last bits differ, and keeps to it: from now on whatever
        this process predicts raises.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def condemn(reason: str) -> UnfitWorkerError:
    """The error of a process that must not go on; `same_kernels` raises it from now on."""
    global _unfit
    _unfit = f"worker on {platform.node()} {reason}"
    return UnfitWorkerError(_unfit)


def _n_short() -> int:
    """How often memory could not be had on the current GPU."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return 0
    return int(torch.cuda.memory_stats().get("num_ooms", 0))


def _enter() -> None:
    global _n_asking, _before, _n_short_before
    cudnn = torch.backends.cudnn
    with _lock:
        if _unfit is not None:
            raise UnfitWorkerError(_unfit)
        if not _n_asking:
            _n_short_before = _n_short()
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
        if _n_short() > _n_short_before:
            raise condemn(
                "ran short of GPU memory, and some codes might differ. Use the GPU for nothing "
                "else, or a smaller predict.tile or predict.crop, and resume."
            )
