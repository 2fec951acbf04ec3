"""Affinities to segments on real EM: ours against the published way, on one core.

    python -m benchmarks.postprocess [--json] [--cache FOLDER] [--sections 40] [--quick]

Reads ``EMSLICE_DATA`` (default ../shared/data). Both ways run in turns in this process, pinned to
one core; figures are medians, the ratio is that of paired runs, times are of CPU: on one core those
of a clock, less what other processes took. Peak memory is that of fresh processes.
Figures at the top of the JSON: ours, unless the name says published.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import click

import emslice
from benchmarks import block_dependence, distances, graphs, peak_memory, quality
from benchmarks.pipelines import Result, as_floats, run_ours, run_published
from benchmarks.postprocess_table import table
from benchmarks.real_em import RealEm, load_ac4

EDGES = [100_000, 1_000_000, 10_000_000]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=Path(tempfile.gettempdir()) / "emslice-benchmarks",
    help="Folder that keeps the predicted affinities.",
)
@click.option("--sections", default=40, show_default=True, help="Sections of ac4_crop.")
@click.option("--repeats", default=3, show_default=True, help="Paired runs.")
@click.option("--quick", is_flag=True, help="No tables of quality, no large graphs.")
def main(as_json: bool, cache: Path, sections: int, repeats: int, quick: bool) -> None:
    """Measure post-processing on ac4_crop."""
    real = load_ac4(cache, sections)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    result = paired(real, repeats)
    result["distance"] = distances.measure(real.codes)
    result["odd"] = graphs.odd_volumes(real.codes)
    sizes = EDGES[:1] if quick else EDGES
    result["growth_rows"] = graphs.growth(real.codes, sizes)
    result["growth"] = (
        result["growth_rows"][-1]["ns_per_edge"] / result["growth_rows"][0]["ns_per_edge"]
    )
    if not quick:
        result["quality"] = quality.measure(real.codes, real.truth)
        result["blocks"] = block_dependence.measure(real.codes, real.truth)
    print(json.dumps(result) if as_json else table(result))


def paired(real: RealEm, repeats: int) -> dict[str, Any]:
    """Speed, memory and scores of both ways."""
    affinity = as_floats(real.codes)
    corner = real.codes[:, :2, :64, :64]
    run_ours(corner)  # compiles
    run_published(as_floats(corner), corner)
    runs = [(run_ours(real.codes), run_published(affinity, real.codes)) for _ in range(repeats)]
    voxels = real.truth.size
    ours, published = ([pair[i] for pair in runs] for i in (0, 1))
    spent = [_total(run) for run in ours]
    scores = [emslice.evaluate(way[0].segments, real.truth) for way in (ours, published)]
    numbering = quality.spread_of_numbering(real.codes, published[0].labels, real.truth)
    return {
        "mvox_per_s": voxels / median(spent) / 1e6,
        "ratio": median(_total(b) / _total(a) for a, b in runs),
        "bytes_per_voxel": peak_memory.bytes_per_voxel("ours", real.path),
        "voi": scores[0].voi,
        "voi_published": scores[1].voi,
        "edges_per_s": ours[0].edges / median(run.seconds["agglomerate"] for run in ours),
        "bytes_per_voxel_published": peak_memory.bytes_per_voxel("published", real.path),
        "mvox_per_s_published": voxels / median(_total(run) for run in published) / 1e6,
        "ratios": [_total(b) / _total(a) for a, b in runs],
        "scores": {"ours": scores[0].as_dict(), "published": scores[1].as_dict()},
        "voi_published_renumbered": numbering,
        "fragments": {
            "ours": int(ours[0].labels.max()),
            "published": int(published[0].labels.max()),
        },
        "edges": ours[0].edges,
        "steps_mvox_per_s": {"ours": _steps(ours, voxels), "published": _steps(published, voxels)},
        "voxels": voxels,
    }


def _total(run: Result) -> float:
    return sum(run.seconds.values())


def _steps(runs: list[Result], voxels: int) -> dict[str, float]:
    return {
        name: voxels / median(run.seconds[name] for run in runs) / 1e6 for name in runs[0].seconds
    }


if __name__ == "__main__":
    main()
