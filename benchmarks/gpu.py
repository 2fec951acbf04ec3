"""Raw on disk to codes in memory on one GPU, by tile and precision, and what bounds it.

    python -m benchmarks.gpu [--json] [--device cuda] [--side 4096] [--sections 48]

Reads ``EMSLICE_DATA`` (default ../shared/data): ac4_crop, mirrored to the size that is asked for
and stored as zarr, and the student cad_AC34. *Busy* is the share of the clock that the same pairs
of sections take when they lie on the device already and nothing is copied; the rates of the
ceilings are measured in the same process. ``pair_ms`` has that time for PyTorch's own operators,
for our kernels, for these recorded as one graph (what is used), and for a graph with whatever
kernels of cuDNN are fastest, deterministic or not. One student serves all tasks here; a worker has
one for each. ``--device cpu`` runs PyTorch's operators in
float32 and bfloat16, to try the script.
"""

from __future__ import annotations

import gc
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import torch

from benchmarks.predict import measure_bounds
from benchmarks.traffic import count_traffic
from emslice.geometry.lattice import Z_RUN, Tile, TileLattice
from emslice.models.checkpoint import Checkpoint, load_checkpoint
from emslice.models.gpu import GpuStudent, same_kernels
from emslice.models.gpu.network import operators_for
from emslice.models.gpu.operators import PlainOperators
from emslice.models.gpu.recording import start_anew
from emslice.models.pairs import PairPredictor
from emslice.models.profile import ComputeProfile
from emslice.models.student import Window
from emslice.stages.predict import predict
from emslice.volumes import Volume, create_volume, open_volume

DATA = Path(os.environ.get("EMSLICE_DATA", Path(__file__).parents[2] / "shared" / "data"))

FLOP_PER_PIXEL = 2 * (70_432 - 5_904)
"""Of a pair whose earlier stem is known (reference, section 1.3)."""

PRECISIONS = ("float32", "bfloat16", "float16")
TILES = (512, 1024, 2048)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on one line.")
@click.option("--device", default="cuda", show_default=True)
@click.option("--side", default=4096, show_default=True, help="Of a section, voxels.")
@click.option("--sections", default=48, show_default=True)
@click.option("--tasks", default=3, show_default=True, help="At a time, as workers do.")
def main(as_json: bool, device: str, side: int, sections: int, tasks: int) -> None:
    """Measure prediction on one GPU."""
    checkpoint = load_checkpoint(DATA / "checkpoints" / "cad_AC34.ckpt")
    with same_kernels():  # no TF32 in the rate of float32
        ceilings = measure_bounds(device)
    ceilings["bus_gb_per_s"] = _bus(device)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        raw = _store(Path(folder) / "raw.zarr", (sections, side, side))
        for tile in (t for t in TILES if t <= side):
            for precision in PRECISIONS[: 3 if device == "cuda" else 2]:
                rows.append(_measure(raw, checkpoint, device, tile, precision, tasks, ceilings))
                if not as_json:
                    print(rows[-1])
    best = max(rows, key=lambda row: row["mvox_per_s"])
    result = {
        "mvox_per_s": best["mvox_per_s"],
        "best": best,
        "rows": rows,
        "bounds": ceilings,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=None if as_json else 2))


def _store(path: Path, shape: tuple[int, int, int]) -> Volume:
    with h5py.File(DATA / "ac4_crop.h5") as file:
        crop = file["raw"][: min(shape[0], 100)]
    pad = [(0, n - m) for n, m in zip(shape, crop.shape, strict=True)]
    create_volume(path, shape=shape, dtype="uint8", chunk_shape=(Z_RUN, 256, 256))
    volume = open_volume(path, writable=True)
    volume.write(volume.roi, np.pad(crop, pad, mode="symmetric"))
    return volume


def _measure(
    raw: Volume,
    checkpoint: Checkpoint,
    device: str,
    tile: int,
    precision: str,
    tasks: int,
    ceilings: dict[str, float],
) -> dict[str, Any]:
    """One row: a whole volume from disk, and the network alone on one tile of it."""
    shape = tuple(int(n) for n in raw.roi.shape)
    lattice = TileLattice(shape[1:], tile)
    _forget(device)
    student = GpuStudent(checkpoint.network, getattr(torch, precision), device)
    student.lanes.kept_bytes *= tasks  # as the students of so many tasks of a worker keep
    profile = ComputeProfile(device, "", "", precision, tile, 1, 1)
    predictor = PairPredictor(checkpoint.network, lattice, profile, student)
    for _ in range(2):  # warms up: a lane for each task and shape of tile
        predict(raw, predictor, raw.roi, workers=tasks)
    _wait(device)
    start = time.perf_counter()
    predict(raw, predictor, raw.roi, workers=tasks)
    _wait(device)
    seconds = time.perf_counter() - start
    peak_bytes, seen = _memory(device), 0
    for place in lattice.tiles():
        pixels = (place.y.read[1] - place.y.read[0]) * (place.x.read[1] - place.x.read[0])
        seen += pixels * shape[0]
    some = next(lattice.tiles())
    pairs = _pairs(checkpoint, student, some, lattice)
    pixels = (some.y.read[1] - some.y.read[0]) * (some.x.read[1] - some.x.read[0])
    rate = pixels / pairs["recorded"] * 1000
    voxels = int(np.prod(shape))
    peak = ceilings[f"convolution_{precision}_gflop_per_s"]
    moved = count_traffic(checkpoint.network, getattr(torch, precision), 256, device == "cuda")
    return {
        "tile": tile,
        "precision": precision,
        "mvox_per_s": voxels / seconds / 1e6,
        "busy": seen / rate / seconds,
        "seen_per_voxel": seen / voxels,
        "of_convolution_rate": seen * FLOP_PER_PIXEL / seconds / 1e9 / peak,
        "of_memory": seen * moved["bytes_per_pixel"] / seconds / 1e9 / ceilings["memory_gb_per_s"],
        "of_bus": (seen + 3 * voxels) / seconds / 1e9 / ceilings["bus_gb_per_s"],
        "device_bytes_per_pixel": peak_bytes / pixels,
        "pair_ms": pairs,
    }


def _pairs(
    checkpoint: Checkpoint, student: GpuStudent, tile: Tile, lattice: TileLattice
) -> dict[str, float]:
    """Milliseconds of a pair of sections on the device, with the stem of one, by how it is run."""
    cudnn, device = torch.backends.cudnn, student.network.device.type

    def like(operators: Any) -> GpuStudent:
        return GpuStudent(checkpoint.network, student.network.dtype, device, operators)

    kernels = operators_for(student.network.device)
    kernels.recorded = False
    with same_kernels():
        found = {
            "plain": _pair_ms(like(PlainOperators()), tile, lattice),
            "kernels": _pair_ms(like(kernels), tile, lattice),
            "recorded": _pair_ms(student, tile, lattice),
        }
    before = cudnn.benchmark, cudnn.allow_tf32
    cudnn.benchmark, cudnn.allow_tf32 = True, False
    found["any kernels"] = _pair_ms(like(None), tile, lattice)
    cudnn.benchmark, cudnn.allow_tf32 = before
    return found


@torch.inference_mode()
def _pair_ms(student: GpuStudent, tile: Tile, lattice: TileLattice) -> float:
    (y0, y1), (x0, x1) = tile.y.read, tile.x.read
    shape, device = (y1 - y0, x1 - x0), student.network.device
    window = Window((y0, x0), tuple(axis.padded for axis in lattice.axes))
    raw = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    area, n = (slice(0, shape[0]), slice(0, shape[1])), 8
    with student.lanes.lane(shape, window, area) as lane:
        lane.begin(raw)
        for repeat in (2, n):
            _wait(device.type)
            start = time.perf_counter()
            for _ in range(repeat):
                lane.advance(raw)
            _wait(device.type)
    return (time.perf_counter() - start) / n * 1000


def _bus(device: str) -> float:
    """GB/s of pinned copies to the device."""
    if device != "cuda":
        return float("nan")
    host = torch.empty(2**28, dtype=torch.uint8, pin_memory=True)
    there = torch.empty_like(host, device=device)
    best = float("inf")
    for _ in range(5):
        _wait(device)
        start = time.perf_counter()
        there.copy_(host, non_blocking=True)
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2**28 / best / 1e9


def _forget(device: str) -> None:
    """Give back what earlier rows took, so that this one's memory is its own."""
    if device == "cuda":
        gc.collect()
        start_anew()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _memory(device: str) -> float:
    return float(torch.cuda.max_memory_reserved()) if device == "cuda" else float("nan")


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
