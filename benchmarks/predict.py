"""Prediction against the plain network: ratios, voxels/s, and what bounds them.

    python -m benchmarks.predict [--json] [--device cpu|cuda] [--rounds 3]

Reads ``EMSLICE_DATA`` (default ../shared/data): ac4_crop and the student cad_AC34. Plain is the
same checkpoint in eager PyTorch: float32, channels first, whole padded sections, both stems of each
pair, affinities and codes on the same device. Everything runs on one thread of one process and
takes turns; times are medians, of the thread's own seconds on a processor. ``plain`` gives freed
memory back to the system, as PyTorch does by itself; ``plain_kept`` keeps it, as ours does.

``teacher_ratio`` compares with the 3D teachers (``benchmarks/teachers.py``): the smallest share of
the ratio of multiplications that is reached in our engine, over teachers, data sets and precisions.
"""

from __future__ import annotations

import copy
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from benchmarks.teachers import (
    MATCHES,
    VOXELS,
    prepare,
    report,
    smallest_share,
    time_ours,
    time_plain,
)
from emslice.errors import ConfigError
from emslice.geometry.lattice import TileLattice
from emslice.models.allocator import freed_memory_kept
from emslice.models.checkpoint import load_checkpoint
from emslice.models.pairs import PairPredictor
from emslice.models.profile import resolve_profile
from emslice.models.student import Student
from emslice.ops.affinity import pair_affinity, quantise

DATA = Path(os.environ.get("EMSLICE_DATA", Path(__file__).parents[2] / "shared" / "data"))
SIDES = (512, 1264)
"""Padded sections, voxels; the larger is AC4 by reflection."""

MATCHED_SIDES = sorted({match.side for match in MATCHES.values()})

RUN = 4
"""Sections of a call; the stem of one more is computed, as at the start of every run."""

Run = Callable[[], NDArray[np.uint8]]


@dataclass
class Side:
    """Sections of one size, what runs on them, and the seconds a section of each."""

    sections: NDArray[np.uint8]
    plain: Run
    ours: dict[str, Run]
    seconds: dict[str, list[float]]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on one line.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Turns of each variant.")
def main(as_json: bool, device: str, rounds: int) -> None:
    """Measure the network on sections of ac4_crop."""
    torch.set_num_threads(1)
    network = load_checkpoint(DATA / "checkpoints" / "cad_AC34.ckpt").network
    sides = {side: _side(network, side, device) for side in SIDES}
    matched = {side: _side(network, side, device) for side in MATCHED_SIDES}
    teachers = prepare(device, list(sides[SIDES[0]].ours))

    def clock(run: Callable[[], Any]) -> float:
        return _seconds(run, device)

    for side in sides.values():  # before the allocator is changed, which cannot be undone wholly
        side.seconds["plain"] = [_seconds(side.plain, device) for _ in range(rounds)]
    time_plain(teachers, {n: side.plain for n, side in matched.items()}, rounds, clock)
    with freed_memory_kept() if device == "cpu" else nullcontext():  # as workers do
        reports = {str(n): _report(side, n, device, rounds) for n, side in sides.items()}
        bounds = measure_bounds(device)
        time_ours(teachers, {n: s.ours for n, s in matched.items()}, RUN, rounds, clock)
    against = report(teachers)
    largest, length = reports[str(SIDES[-1])], SIDES[-1]
    ours = sides[length].ours  # memory is not kept any longer: what a call takes can be seen
    memory = {name: _peak_bytes(run, length**2, device) for name, run in ours.items()}
    windows = {
        f"{name} {precision}": _peak_bytes(run, VOXELS[name], device)
        for precision, runs in teachers.ours.items()
        for name, run in runs.items()
    }
    result = {
        "fp32_ratio": min(r["ratios"]["float32"] for r in reports.values()),
        "best_ratio": min(max(r["ratios"].values()) for r in reports.values()),
        "teacher_ratio": smallest_share(against),
        "teachers": against,
        "mvox_per_s": max(largest["mvox_per_s"].values()),
        "bytes_per_voxel": max(memory.values()),
        "bytes_per_voxel_of": memory,
        "teacher_bytes_per_voxel_of": windows,
        "sides": reports,
        "bounds": bounds,
        "load": os.getloadavg(),
    }
    print(json.dumps(result, indent=None if as_json else 2))


def _side(network: Student, side: int, device: str) -> Side:
    with h5py.File(DATA / "ac4_crop.h5") as file:
        raw = file["raw"][: RUN + 1]
    pad = (side - raw.shape[1]) // 2
    sections = np.pad(raw, [(0, 0), (pad, pad), (pad, pad)], mode="symmetric")
    ours = {}
    for precision in ("float32", "bfloat16"):
        try:
            ours[precision] = _ours(network, sections, device, precision)
        except ConfigError:
            continue  # this device lacks it
    return Side(sections, _plain(network, sections[:2], device), ours, {})


def _report(side: Side, length: int, device: str, rounds: int) -> dict[str, Any]:
    """Ratios, speeds and agreement; every variant takes its turn in every round."""
    expected = side.plain()
    codes = {name: run()[:, :1] for name, run in side.ours.items()}  # warms up
    for _ in range(rounds):
        side.seconds.setdefault("plain_kept", []).append(_seconds(side.plain, device))
        for name, run in side.ours.items():
            side.seconds.setdefault(name, []).append(_seconds(run, device) / RUN)
    median = {name: statistics.median(values) for name, values in side.seconds.items()}
    apart = {name: np.abs(found.astype(int) - expected) for name, found in codes.items()}
    return {
        "seconds_a_section": median,
        "ratios": {name: median["plain"] / median[name] for name in codes},
        "ratios_to_plain_kept": {name: median["plain_kept"] / median[name] for name in codes},
        "mvox_per_s": {name: length**2 / median[name] / 1e6 for name in median},
        "within_one": {name: float((a <= 1).mean()) for name, a in apart.items()},
        "largest": {name: int(a.max()) for name, a in apart.items()},
    }


def _plain(network: Student, sections: NDArray[np.uint8], device: str) -> Run:
    moved = copy.deepcopy(network).to(device)

    @torch.inference_mode()
    def run() -> NDArray[np.uint8]:
        codes = []
        for z in range(1, len(sections)):
            pair = torch.from_numpy(sections[z - 1 : z + 1]).to(device).float()[None] / 255
            first, second = moved(pair)
            codes.append(quantise(pair_affinity(first[0], second[0])).cpu().numpy())
        return np.stack(codes, 1)

    return run


def _ours(network: Student, sections: NDArray[np.uint8], device: str, precision: str) -> Run:
    profile = resolve_profile(device, 4096, 1, precision)  # one tile: what the plain network sees
    lattice = TileLattice((sections.shape[1], sections.shape[2]), profile.tile)
    predictor, (tile,) = PairPredictor(network, lattice, profile), lattice.tiles()
    return lambda: predictor.affinities(sections, tile)


def _seconds(run: Callable[[], Any], device: str) -> float:
    """Seconds of one call: of this thread on a processor, of the clock on a GPU."""
    clock = time.thread_time if device == "cpu" else time.perf_counter
    start = clock()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def _peak_bytes(run: Callable[[], Any], voxels: int, device: str) -> float:
    """Bytes a voxel of what the network sees that a call has in use at most, codes included."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        return float(torch.cuda.max_memory_allocated()) / voxels
    with freed_memory_kept():
        pass  # leaving it gives back what earlier calls have freed
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is resident now
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / voxels


def _status(name: str) -> int:
    """Bytes that the kernel gives for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measure_bounds(device: str) -> dict[str, float]:
    """Matrix rates and memory bandwidth, measured the same way in the same process."""
    found = {}
    halves = (torch.bfloat16, torch.float16) if device == "cuda" else (torch.bfloat16,)
    for precision in (torch.float32, *halves):
        name = str(precision).removeprefix("torch.")
        n, side = (8192, 4096) if device == "cuda" else (2048, 512)  # a GPU is not filled by less
        matrix = torch.ones(n, n, dtype=precision, device=device)
        found[f"matmul_{name}_gflop_per_s"] = 2 * n**3 / _best(lambda m: m @ m, matrix) / 1e9
        features = torch.ones(1, 32, side, side, dtype=precision, device=device)
        features = features.contiguous(memory_format=torch.channels_last)
        weight = torch.ones(32, 32, 3, 3, dtype=precision, device=device)
        seconds = _best(lambda f, w=weight: F.conv2d(f, w, padding=1), features)
        found[f"convolution_{name}_gflop_per_s"] = 2 * 9 * 32 * 32 * side**2 / seconds / 1e9
    block = torch.ones(2**26, device=device)  # 256 MiB: no cache holds it
    copied = torch.empty_like(block)
    found["memory_gb_per_s"] = 2 * 4 * 2**26 / _best(copied.copy_, block) / 1e9
    return found


@torch.inference_mode()
def _best(run: Callable[..., Any], argument: torch.Tensor) -> float:
    """Seconds of the fastest of several calls."""
    run(argument)
    return min(_seconds(lambda: run(argument), argument.device.type) for _ in range(5))


if __name__ == "__main__":
    main()
