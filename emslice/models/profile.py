"""What decides the last bit of a prediction, and is therefore part of a run's identity.

The same network on the same raw gives the same codes within one profile; another instruction set,
torch version, tile shape or thread count may change a code by one (in bfloat16 by a few), another
precision moves many by one (docs/design/0012-precision.md). From affinities on, everything
is integers and the profile does not matter.
"""

from __future__ import annotations

import os
import platform
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from emslice.errors import ConfigError, UnfitWorkerError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")

BFLOAT16_UNITS = ("amx_bf16", "avx512_bf16")
"""Extensions that multiply bfloat16, the one that is used first."""


@dataclass(frozen=True)
class ComputeProfile:
    """Resolved once when a run starts, stored with it, the same on every worker."""

    device: str
    """``cpu`` or ``cuda``."""

    hardware: str
    """Instruction set of the CPU kernels and what multiplies bfloat16; of a GPU its name, and the
    versions of what makes its kernels."""

    torch: str
    precision: str
    """``float32``, ``bfloat16`` or ``float16``: of weights and features; sums are float32."""

    tile: int
    """Longest side of a tile's core, voxels."""

    batch: int
    """Pairs of sections in one call of the network."""

    threads: int
    """Threads of one operator."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the run's record."""
        return asdict(self)


def resolve_profile(
    device: str = "cpu", tile: int = 1024, threads: int = 1, precision: str = "auto"
) -> ComputeProfile:
    """Profile of this machine; ``auto`` is the precision that it multiplies fastest in.

    Raises
    ------
    ConfigError
        A device that is unknown or not present, or a precision that it lacks.
    """
    if precision not in PRECISIONS:
        raise ConfigError(
            f"predict.precision: {precision!r} is none of {', '.join(map(repr, PRECISIONS))}."
        )
    if device == "cpu":
        hardware, precision = _processor(precision)
    elif device == "cuda":
        hardware, precision = _gpu(precision)
    else:
        raise ConfigError(f"predict.device: {device!r} is neither 'cpu' nor 'cuda'.")
    return ComputeProfile(device, hardware, str(torch.__version__), precision, tile, 1, threads)


def check_worker(profile: ComputeProfile) -> None:
    """Raise `UnfitWorkerError` unless this machine has the profile that a run was planned with."""
    asked = profile.as_dict()
    try:
        found = resolve_profile(
            profile.device, profile.tile, profile.threads, profile.precision
        ).as_dict()
    except ConfigError as error:
        found, reason = {}, str(error)
    else:
        names = [name for name in asked if found[name] != asked[name]]
        reason = "; ".join(
            f"{n}: the run has {asked[n]!r}, this worker {found[n]!r}" for n in names
        )
    if found != asked:
        raise UnfitWorkerError(
            f"worker on {platform.node()} cannot predict for this run, as some codes would differ: "
            f"{reason}. Use workers like the machine that planned it, or plan the run anew on one "
            f"like this."
        )


def _processor(precision: str) -> tuple[str, str]:
    """Instruction set of the CPU kernels, and the precision resolved."""
    capability = torch.backends.cpu.get_cpu_capability()
    if precision == "float16":
        raise ConfigError("predict.precision: float16 is for device cuda. Take auto or float32.")
    unit = bfloat16_unit()
    if precision == "float32" or (precision == "auto" and unit is None):
        return capability, "float32"
    if unit is None:
        raise ConfigError(
            f"predict.precision: bfloat16 was asked for, but this processor ({capability}) has "
            f"none of {', '.join(BFLOAT16_UNITS)}. Take auto or float32."
        )
    return f"{capability} {unit}", "bfloat16"  # the units sum in different orders


def bfloat16_unit() -> str | None:
    """What multiplies bfloat16 on this processor; None where it would be emulated."""
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return None  # a build without oneDNN
    found = torch.cpu.get_capabilities()
    return next((unit for unit in BFLOAT16_UNITS if found.get(unit)), None)


def _gpu(precision: str) -> tuple[str, str]:
    """Name of the GPU and what compiles for it, and the precision resolved."""
    if not torch.cuda.is_available():
        raise ConfigError(
            f"predict.device: cuda was asked for, and torch {torch.__version__} sees no GPU. "
            f"Set it to cpu, or install a driver and PyTorch's build for CUDA."
        )
    if precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(
            f"predict.precision: {torch.cuda.get_device_name()} does not multiply bfloat16. Take "
            f"auto, float32 or float16."
        )
    # float16 keeps 99.8 % of codes within 1, bfloat16 86 % (docs/results/predict.md).
    name, cudnn = torch.cuda.get_device_name(), torch.backends.cudnn.version()
    hardware = f"{name}, Triton {_compiler()}, cuDNN {cudnn}"
    return hardware, "float16" if precision == "auto" else precision


def _compiler() -> str:
    """Version of Triton, which compiles kernels for a GPU when a worker starts."""
    try:
        found = version("triton")
    except PackageNotFoundError:
        raise ConfigError(
            "predict.device: cuda needs Triton, which PyTorch's builds for CUDA on Linux bring, "
            "and it is not installed here. Run: pip install triton"
        ) from None
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    missing = None if header.is_file() else f"there is no {header}"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        missing = "neither gcc nor clang is in PATH nor CC set"
    if missing:
        raise ConfigError(
            f"predict.device: cuda needs a C compiler and Python's headers for Triton, and "
            f"{missing}. Run: apt-get install gcc libc6-dev python3-dev"
        )
    return found


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
