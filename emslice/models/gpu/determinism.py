"""The same kernels for the same shape, for as long as any thread asks for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_n_asking = 0
_before = (False, False, True)


@contextmanager
def same_kernels() -> Iterator[None]:
    """Let cuDNN choose kernels by shape alone, none that add in any order, and no TF32.

    These are settings of the whole process, and several tasks predict at a time in one: the first
    that comes sets them, the last that leaves restores what was.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


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
