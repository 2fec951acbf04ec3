"""Fragments in 2D and in 3D on isotropic EM: quality, speed on one core, memory of a block.

    python -m benchmarks.isotropic [--json]

Reads ``gala_train.h5`` in ``EMSLICE_DATA`` (default ../shared/data): 50 x 100 x 200 voxels of 10
nm; affinities are one minus the larger boundary probability of two voxels. Speed and memory are
measured on mirror images of it that fill 192 x 400 x 400 voxels.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

import emslice
from benchmarks.main_job import DATA
from emslice.ops.fragments import fragment_halo, make_fragments
from emslice.volumes import create_volume

THRESHOLDS = (0.7, 0.5, 0.4, 0.3, 0.2)
CASES = ((2, 64), (3, 4), (3, 8), (3, 16), (3, 32))
LARGE = (192, 400, 400)
CLI = "from emslice.cli.main import main; main()"
BLOCKS = ((64, 64, 64), (64, 128, 128), (128, 200, 200))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(as_json: bool) -> None:
    """Compare fragments in two and in three dimensions."""
    with h5py.File(DATA / "gala_train.h5") as file:
        codes, truth = codes_of(file["boundary_prob"][:]), file["labels"][:]
    missing = [(0, n - m) for n, m in zip(LARGE, codes.shape[1:], strict=True)]
    large = np.pad(codes, [(0, 0), *missing], "symmetric")
    result = {
        "quality": [quality(codes, truth, *case) for case in CASES],
        "speed": [speed(large, *case) for case in (*CASES, (3, 64))],
        "memory": memory(large),
    }
    if as_json:
        print(json.dumps(result))
        return
    for name, rows in result.items():
        print(name)
        for row in rows:
            print("  " + "  ".join(f"{key} {value}" for key, value in row.items()))


def codes_of(boundary: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Codes from boundary probabilities; never 0, which would mask sure boundary."""
    codes = np.empty((3, *boundary.shape), np.uint8)
    for k in range(3):
        order = np.maximum(np.arange(boundary.shape[k]) - 1, 0)
        affinity = 1 - np.maximum(boundary, boundary.take(order, k))
        codes[k] = np.clip(affinity * 256, 1, 255)
    return codes


def quality(codes: Any, truth: Any, dimensions: Any, radius: int) -> dict[str, Any]:
    """Scores at every threshold."""
    row: dict[str, Any] = {"dimensions": dimensions, "radius": radius}
    row["fragments"] = make_fragments(codes, radius=radius, dimensions=dimensions).n_roots
    for threshold in THRESHOLDS:
        segments = emslice.segment_affinities(
            codes, threshold, dimensions=dimensions, radius=radius, lowest_threshold=0.2
        )
        s = emslice.evaluate(segments, truth)
        row[str(threshold)] = f"{s.voi_split:.3f}+{s.voi_merge:.3f}={s.voi:.3f} {s.arand:.3f}"
    return row


def speed(codes: NDArray[np.uint8], dimensions: int, radius: int) -> dict[str, Any]:
    """Mvoxel/s of fragments alone, of processor time, one thread, best of three."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        make_fragments(codes, radius=radius, dimensions=dimensions)
        seconds.append(time.process_time() - start)
    rate = codes[0].size / 1e6 / min(seconds)
    return {"dimensions": dimensions, "radius": radius, "Mvoxel/s": round(rate, 1)}


def memory(codes: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """Peak of a process that works on blocks in 3D, one by one."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        stored = create_volume(Path(name) / "aff.zarr", shape=LARGE, dtype="uint8", channels=3)
        stored.write(stored.roi, codes)
        for block in BLOCKS:
            run, text = Path(name) / f"run{block[1]}", ",".join(map(str, block))
            command = [sys.executable, "-c", CLI, "segment", "--from-affinities",
                       stored.url, str(run), "--set", "fragments.dimensions=3", "--workers", "1",
                       "--block", text]  # fmt: skip
            subprocess.run(command, check=True, capture_output=True)
            facts = yaml.safe_load((run / "run.yaml").read_text())["stages"]["fragments"]
            halo = zip(block, fragment_halo(32, 3), LARGE, strict=True)
            read = np.prod([min(b + 2 * h, n) for b, h, n in halo])
            peak, planned = facts["peak_memory_bytes"] / 2**20, 475 + 28 * read / 2**20
            rows.append({"block": text, "read Mvoxel": round(read / 1e6, 1),
                         "measured MiB": round(peak), "plan MiB": round(planned),
                         "seconds": facts["seconds"]})  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
