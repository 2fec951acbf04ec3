"""What decides the last bit of a prediction, and is therefore part of a run's identity.

The same network on the same raw gives the same codes within one profile; another instruction set,
torch version, tile shape or thread count may change a code by one. From affinities on, everything
is integers and the profile does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from emslice.errors import ConfigError


@dataclass(frozen=True)
class ComputeProfile:
    """Resolved once when a run starts, stored with it, the same on every worker."""

    device: str
    """``cpu`` or ``cuda``."""

    hardware: str
    """Instruction set of the CPU kernels, or name of the GPU."""

    torch: str
    precision: str
    """``float32``; other precisions are other profiles."""

    tile: int
    """Longest side of a tile's core, voxels."""

    batch: int
    """Pairs of sections in one call of the network."""

    threads: int
    """Threads of one operator."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the run's record."""
        return asdict(self)


def resolve_profile(device: str = "cpu", tile: int = 1024, threads: int = 1) -> ComputeProfile:
    """Profile of this machine.

    Raises
    ------
    ConfigError
        A device that is unknown or not present.
    """
    if device == "cpu":
        hardware = torch.backends.cpu.get_cpu_capability()
    elif device == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("predict.device: cuda was asked for, but no CUDA device is present.")
        hardware = torch.cuda.get_device_name()
    else:
        raise ConfigError(f"predict.device: {device!r} is neither 'cpu' nor 'cuda'.")
    return ComputeProfile(device, hardware, str(torch.__version__), "float32", tile, 1, threads)


@contextmanager
def operator_threads(n: int) -> Iterator[Callable[[], None]]:
    """Run torch operators on ``n`` threads, and restore what was set before.

    Yields a function to be called in every thread that is to follow: OpenMP keeps the number for
    each thread, and a new one would start with all cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield lambda: torch.set_num_threads(n)
    finally:
        torch.set_num_threads(before)
