"""How what cannot be decided grows with the volume, and with it memory, seconds and tables.

    python -m benchmarks.growth [--json] [--quick] [--codes CODES.npy] [--affinities URL]

Reads ``EMSLICE_DATA`` (default ../shared/data): affinities of ac4_crop [0:40], which it predicts
unless they are given, and affinities rendered from the labels of pinky_seg. First, cubes as one
node with every face open; then whole runs with blocks of one size on crops of the rendered volume.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np

import emslice
from benchmarks.growth_nodes import Codes, exponent, growing, measure_node, mirrored
from benchmarks.growth_runs import Shape, run_crop
from benchmarks.main_job import DATA
from benchmarks.rendering import render_volume
from emslice.geometry.boxes import Roi
from emslice.ops.linkage import Linkage
from emslice.volumes import open_volume

LOWEST = (0.5, 0.3, 0.1)
BLOCK = (16, 256, 256)
SHAPES: list[Shape] = [(32, 256, 256), (32, 512, 512), (64, 512, 512), (64, 1024, 1024),
                       (128, 1024, 1024), (256, 1024, 1024)]  # fmt: skip


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quick", is_flag=True, help="Small cubes and three small runs.")
@click.option("--codes", type=click.Path(exists=True), help="Codes of ac4_crop [0:40], .npy.")
@click.option("--affinities", help="Rendered before; a zarr of at least 256 x 1024 x 1024.")
@click.option("--runs/--no-runs", default=True, help="Also whole runs.")
def main(as_json: bool, quick: bool, codes: str | None, affinities: str | None, runs: bool) -> None:
    """Measure growth on AC4 and on rendered affinities."""
    shapes = SHAPES[:3] if quick else SHAPES
    result: dict[str, Any] = {"ac4": _nodes(_ac4(codes, quick), [2, 1, 0] if quick else range(4))}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if affinities is None:
            box = Roi((0, 0, 0), shapes[-1])
            affinities = render_volume(DATA / "pinky_seg.h5", box, folder / "aff.zarr").url
        largest = (64, 512, 512) if quick else (128, 1024, 1024)
        crop = open_volume(affinities).read(Roi((0, 0, 0), largest))
        result["pinky"] = _nodes(crop, range(3) if quick else range(4))
        del crop
        if runs:
            result["runs"] = [
                run_crop(affinities, folder / f"run{i}", shape, BLOCK, 0.3)
                for i, shape in enumerate(shapes)
            ]
    print(json.dumps(result) if as_json else "\n".join(_lines(result)))


def _ac4(codes: str | None, quick: bool) -> Codes:
    """Codes of ac4_crop [0:40], mirrored to twice the side unless it must be quick."""
    if codes is not None:
        found: Codes = np.load(codes)
    else:
        with h5py.File(DATA / "ac4_crop.h5") as file:
            raw = file["raw"][:40]
        found = emslice.predict_affinities(
            raw, DATA / "checkpoints" / "cad_AC34.ckpt", precision="float32"
        )
    return found if quick else mirrored(found)


def _nodes(codes: Codes, halvings: Sequence[int]) -> list[dict[str, Any]]:
    """Cubes of growing side, the smallest first."""
    sides = sorted(halvings, reverse=True)
    return [measure_node(cube, LOWEST, Linkage()) for cube in growing(codes, sides)]


def _lines(result: dict[str, Any]) -> list[str]:
    lines = []
    for name in ("ac4", "pinky"):
        lines += _node_lines(name, result[name])
    for run in result.get("runs", []):
        lines += _run_lines(run)
    return lines


def _node_lines(name: str, rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"{name}: shape | voxels | fragments | rows | touching | "
        "lowest: open nodes, open rows, MB of the rest"
    ]
    for row in rows:
        left = "; ".join(
            f"{t:g}: {v['open_nodes']:,}, {v['open_rows']:,}, {v['bytes'] / 1e6:.1f}"
            for t, v in row["lowest"].items()
        )
        counts = " | ".join(f"{row[k]:,}" for k in ("voxels", "fragments", "rows", "touching"))
        lines.append(f"{'x'.join(map(str, row['shape']))} | {counts} | {left}")
    for lowest in LOWEST:
        slopes = {k: exponent(rows, lowest, k) for k in ("open_nodes", "open_rows")}
        shown = "; ".join(f"{k} {' '.join(f'{s:.2f}' for s in v)}" for k, v in slopes.items())
        lines.append(f"exponents at {lowest:g}: {shown}")
    return lines


def _run_lines(run: dict[str, Any]) -> list[str]:
    stages = ", ".join(
        f"{name} {facts['seconds']:.1f} s {(facts['peak_bytes'] or 0) / 2**20:.0f} MiB"
        for name, facts in run["stages"].items()
    )
    root = run["root"]
    tables = sum(run["table_bytes"].values()) / run["voxels"]
    return [
        f"run {'x'.join(map(str, run['shape']))}: {run['seconds']:.1f} s; {stages}",
        f"  root {root['bytes'] / 2**20:.0f} MiB, "
        f"{root['seconds']:.2f} s, {root['rows_in']:,} rows in; "
        f"{tables:.2f} bytes of tables a voxel",
        *(
            f"  level {v['level']}: {v['nodes']} nodes; largest: open {v['open_names']:,}, rows "
            f"{v['open_edges']:,}, rest {v['rest_bytes'] / 1e6:.1f} MB"
            for v in run["levels"]
        ),
    ]


if __name__ == "__main__":
    main()
