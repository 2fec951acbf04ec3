"""One digest, and what blocks cost: real EM in many blockings, and the whole crop against memory.

    python -m benchmarks.blocks [--json] [--sections 40]

Reads ``EMSLICE_DATA`` (default ../shared/data). Every run is an ``emslice segment`` of its own. The
overhead compares a run with 2 workers with the Python API on 2 threads, in the same session.
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
import yaml

import emslice
from benchmarks.main_job import DATA
from emslice.volumes.digest import digest_array
from emslice.volumes.importing import import_volume

CHECKPOINT = DATA / "checkpoints" / "cad_AC34.ckpt"
SHAPES = ("40,512,512", "20,256,256", "16,200,200", "7,131,173", "40,97,512", "3,64,500",
          "13,512,101", "40,50,50")  # fmt: skip


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--sections", default=40, show_default=True, help="Sections for the digests.")
@click.option("--overhead/--no-overhead", default=True, help="Also the whole crop.")
def main(as_json: bool, sections: int, overhead: bool) -> None:
    """Compare digests, time and memory over blockings of ac4_crop."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = import_volume(f"{DATA}/ac4_crop.h5:raw", folder / "raw.zarr")
        result: dict[str, Any] = {"runs": _digests(folder, raw.url, f"0:{sections},:,:")}
        with h5py.File(DATA / "ac4_crop.h5") as file:
            array = file["raw"][:]
        start = time.perf_counter()
        codes = emslice.predict_affinities(array[:sections], CHECKPOINT)
        result["in_memory_digest"] = digest_array(emslice.segment_affinities(codes))
        digests = {run["digest"] for run in result["runs"]} | {result["in_memory_digest"]}
        result["digests"] = len(digests)
        if overhead:
            start = time.perf_counter()
            emslice.segment_affinities(emslice.predict_affinities(array, CHECKPOINT))
            in_memory = time.perf_counter() - start
            run = _run(folder, "whole", [raw.url], ["--checkpoint", str(CHECKPOINT)])
            result["whole"] = {**run, "in_memory_s": in_memory, "ratio": run["seconds"] / in_memory}
    print(json.dumps(result) if as_json else _table(result))


def _digests(folder: Path, raw: str, roi: str) -> list[dict[str, Any]]:
    weights = ["--checkpoint", str(CHECKPOINT), "--roi", roi]
    runs = [
        _run(folder, "keep", [raw], [*weights, "--affinities", "keep", "--workers", "2"]),
        _run(folder, "drop", [raw], [*weights, "--workers", "1", "--block", "11,200,300"]),
        _run(folder, "drop2", [raw], [*weights, "--workers", "2", "--block", "5,300,211"]),
    ]
    stored = ["--from-affinities", str(folder / "keep" / "affinities.zarr")]
    for i, shape in enumerate(SHAPES):
        workers = str(1 + i % 2)
        options = ["--block", shape, "--workers", workers]
        runs.append(_run(folder, f"aff{i}", stored, options))
    return runs


def _run(folder: Path, name: str, source: list[str], options: list[str]) -> dict[str, Any]:
    """One run as a process of its own, and what its record says."""
    command = [str(Path(sys.executable).parent / "emslice"), "segment"]
    start = time.perf_counter()
    subprocess.run(
        [*command, *source, str(folder / name), *options],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    record = yaml.safe_load((folder / name / "run.yaml").read_text())
    stages = {
        stage: {"seconds": facts["seconds"], "peak_bytes": facts.get("peak_memory_bytes")}
        for stage, facts in record["stages"].items()
    }
    return {
        "name": name, "options": " ".join(options), "digest": record["digests"]["segmentation"],
        "seconds": seconds, "stages": stages, "coordinator_peak_bytes": record["peak_memory_bytes"],
        "block": record["config"]["block"],
    }  # fmt: skip


def _table(result: dict[str, Any]) -> str:
    lines = [f"{'run':6s} {'block':>16s} {'s':>7s}  digest"]
    for run in result["runs"]:
        block = "x".join(map(str, run["block"]))
        lines.append(f"{run['name']:6s} {block:>16s} {run['seconds']:7.1f}  {run['digest'][:16]}")
    lines.append(f"{'memory':6s} {'':>16s} {'':7s}  {result['in_memory_digest'][:16]}")
    lines.append(f"different digests: {result['digests']}")
    for run in [result["runs"][0], *([result["whole"]] if "whole" in result else [])]:
        lines.append(f"\n{run['name']}: {run['seconds']:.1f} s")
        for stage, facts in run["stages"].items():
            peak = (facts["peak_bytes"] or 0) / 2**20
            share = facts["seconds"] / run["seconds"]
            lines.append(f"  {stage:12s} {facts['seconds']:7.1f} s {share:6.1%} {peak:8.0f} MiB")
    if "whole" in result:
        whole = result["whole"]
        lines.append(
            f"\nwhole crop: 2 workers {whole['seconds']:.1f} s, in memory "
            f"{whole['in_memory_s']:.1f} s: ratio {whole['ratio']:.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
