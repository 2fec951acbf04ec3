"""The main job on real EM: scores of every published student, voxels/s and bytes/voxel by step.

    python -m benchmarks.main_job [--json] [--sections 40]

Reads ``EMSLICE_DATA`` (default ../shared/data). Scores are against dense truth, 0 ignored. waterz
agglomerates the same fragments with the published setting, in the same run.
"""

from __future__ import annotations

import json
import os
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
from emslice.ops.agglomerate import agglomerate
from emslice.ops.fragments import make_fragments
from emslice.ops.linkage import Linkage, integer_threshold
from emslice.ops.merge_tree import merge_tree
from emslice.ops.region_graph import extract_edges
from emslice.ops.waterz_method import merge_by_waterz
from emslice.volumes.importing import import_volume

DATA = Path(os.environ.get("EMSLICE_DATA", Path(__file__).parents[2] / "shared" / "data"))
PUBLISHED = {"voi_split": 0.399, "voi_merge": 0.268, "voi": 0.667, "arand": 0.064}
"""The authors' pipeline on [0:40] with cad_AC34 (data/README.md of the shared data)."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--sections", default=40, show_default=True, help="Sections of ac4_crop.")
def main(as_json: bool, sections: int) -> None:
    """Measure the main job on ac4_crop."""
    with h5py.File(DATA / "ac4_crop.h5") as file:
        raw, truth = file["raw"][:sections], file["labels"][:sections]
    result: dict[str, Any] = {"voxels": raw.size, "published": PUBLISHED, "checkpoints": {}}
    for path in sorted((DATA / "checkpoints").glob("*.ckpt")):
        start = time.perf_counter()
        codes = emslice.predict_affinities(
            raw, path, precision="float32", normalize="none"
        )  # as published
        predicted = time.perf_counter() - start
        scores = emslice.evaluate(emslice.segment_affinities(codes, min_size=0), truth).as_dict()
        scores["predict_mvox_per_s"] = raw.size / predicted / 1e6
        result["checkpoints"][path.stem] = scores
        if path.stem == "cad_AC34":
            result |= _steps(codes, truth)
    result["memory"] = _memory(sections)
    print(json.dumps(result) if as_json else _table(result))


def _steps(codes: NDArray[np.uint8], truth: NDArray[Any]) -> dict[str, Any]:
    """Voxels/s of each step on one thread, and waterz on the same fragments."""
    voxels = codes[0].size
    make_fragments(codes[:, :1])  # compiles
    start = time.perf_counter()
    fragments = make_fragments(codes)
    made = time.perf_counter()
    graph = extract_edges(codes, fragments.labels)
    found = time.perf_counter()
    lowest = integer_threshold(0.3)
    merged = agglomerate(graph, fragments.ids, lowest, Linkage())
    grown = time.perf_counter()
    tree = merge_tree(merged, fragments.ids, lowest)
    ours = tree.cut(0.5).apply(fragments.ids)[fragments.labels]
    done = time.perf_counter()
    theirs, seconds = _waterz(codes, fragments.labels)
    between = emslice.evaluate(theirs, ours)
    steps = {
        "fragments_mvox_per_s": voxels / (made - start) / 1e6,
        "region_graph_mvox_per_s": voxels / (found - made) / 1e6,
        "agglomerate_mvox_per_s": voxels / (grown - found) / 1e6,
        "agglomerate_medges_per_s": len(graph) / (grown - found) / 1e6,
        "relabel_mvox_per_s": voxels / (done - grown) / 1e6,
        "all_mvox_per_s": voxels / (done - start) / 1e6,
    }
    waterz = {
        "seconds": seconds,
        "ratio": seconds / (done - made),
        "against_truth": emslice.evaluate(theirs, truth).as_dict(),
        "emslice_against_truth": emslice.evaluate(ours, truth).as_dict(),
        "voi_between": between.voi,
    }
    return {"steps": steps, "waterz": waterz}


def _waterz(codes: NDArray[np.uint8], labels: NDArray[np.int32]) -> tuple[NDArray[Any], float]:
    """Segmentation by waterz at 0.5, and its seconds."""
    affinity = codes.astype(np.float32) / np.float32(256)
    start = time.perf_counter()
    segmentation = merge_by_waterz(affinity, labels, 0.5, Linkage())
    return segmentation, time.perf_counter() - start


def _memory(sections: int) -> dict[str, float]:
    """Bytes a voxel of whole runs: the growth of the peak from few sections to all."""
    few = max(2, sections // 10)
    checkpoint = DATA / "checkpoints" / "cad_AC34.ckpt"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        volume = import_volume(f"{DATA}/ac4_crop.h5:raw", out / "raw.zarr")
        plane = int(volume.roi.shape[1] * volume.roi.shape[2])

        def peak(name: str, n: int, *source: str) -> int:
            return _peak([*source, "--roi", f"0:{n},:,:", "--workers", "1"], out / f"{name}{n}")

        weights = ["--checkpoint", str(checkpoint)]
        raw = [
            peak("raw", n, *weights, "--affinities", "keep", volume.url) for n in (few, sections)
        ]
        stored = str(out / f"raw{sections}" / "affinities.zarr")
        codes = [peak("aff", n, "--from-affinities", stored) for n in (few, sections)]
    grown = plane * (sections - few)
    return {
        "raw_bytes_per_voxel": (raw[1] - raw[0]) / grown,
        "affinities_bytes_per_voxel": (codes[1] - codes[0]) / grown,
        "raw_peak_bytes": raw[1],
        "affinities_peak_bytes": codes[1],
    }


def _peak(arguments: list[str], run: Path) -> int:
    """Largest resident size of an ``emslice segment``, bytes, as its record says."""
    command = [str(Path(sys.executable).parent / "emslice"), "segment", *arguments, str(run)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return int(yaml.safe_load((run / "run.yaml").read_text())["peak_memory_bytes"])


def _table(result: dict[str, Any]) -> str:
    head = (
        f"{'checkpoint':22s} {'split':>7s} {'merge':>7s} {'VOI':>7s} {'ARAND':>7s} {'Mvox/s':>7s}"
    )
    lines = [head]
    rows = {**result["checkpoints"], "published (cad_AC34)": result["published"]}
    for name, s in rows.items():
        speed = f"{s['predict_mvox_per_s']:7.3f}" if "predict_mvox_per_s" in s else ""
        scores = " ".join(f"{s[key]:7.3f}" for key in ("voi_split", "voi_merge", "voi", "arand"))
        lines.append(f"{name:22s} {scores} {speed}")
    for part in ("steps", "waterz", "memory"):
        lines.append("")
        for key, value in result[part].items():
            shown = value if isinstance(value, dict) else f"{value:,.3f}"
            lines.append(f"{part:8s} {key:28s} {shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
