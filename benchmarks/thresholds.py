"""Every threshold afterwards on real EM: seconds of a run, of a sweep over it and of a cut.

    python -m benchmarks.thresholds [--json] [--sections 40]

Reads ``EMSLICE_DATA`` (default ../shared/data): ac4_crop and the student cad_AC34. One worker, in
one process; the second sweep and the second cut are timed, when everything is compiled.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from emslice.cli.progress import Bars
from emslice.config.load import load_config
from emslice.service.cutting import write_cut
from emslice.service.evaluate import evaluate_volumes
from emslice.service.plan import plan_from_raw
from emslice.service.segment import segment
from emslice.service.sweeping import sweep
from emslice.volumes.importing import import_volume

DATA = Path(os.environ.get("EMSLICE_DATA", Path(__file__).parents[2] / "shared" / "data"))

T = TypeVar("T")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--sections", default=40, show_default=True, help="Sections of ac4_crop.")
def main(as_json: bool, sections: int) -> None:
    """Measure sweep and cut on ac4_crop."""
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), sections)
    if as_json:
        print(json.dumps(result))
        return
    for row in result["rows"]:
        print("  ".join(f"{name} {value:g}" for name, value in row.items()))
    for name, seconds in result["seconds"].items():
        print(f"{name:10s} {seconds:8.2f} s")


def measure(folder: Path, sections: int) -> dict[str, Any]:
    """Rows at the lowest, the default and the best threshold, and seconds of each step."""
    raw = import_volume(f"{DATA}/ac4_crop.h5:raw", folder / "raw.zarr", (30.0, 6.0, 6.0))
    truth = import_volume(f"{DATA}/ac4_crop.h5:labels", folder / "truth.zarr", (30.0, 6.0, 6.0))
    options = {
        "checkpoint": str(DATA / "checkpoints" / "cad_AC34.ckpt"),
        "roi": f"0:{sections},:,:",
        "workers": 1,
        "dust.min_size": 0,  # which sweep does not look at
    }
    run, bars, seconds = folder / "run", Bars(), {}
    plan = plan_from_raw(raw.url, run, load_config(options=options))
    _, seconds["segment"] = timed(lambda: segment(plan, bars))
    for _ in range(2):
        found, seconds["sweep"] = timed(lambda: sweep(run, truth.url, bars))
    best, out = found.best.threshold, str(folder / "cut.zarr")
    write_cut(run, best, folder / "first.zarr", bars)
    cut, seconds["cut"] = timed(lambda: write_cut(run, best, out, bars))
    scores, seconds["evaluate"] = timed(lambda: evaluate_volumes(out, truth.url))
    assert abs(scores.voi - found.best.voi) < 1e-9
    assert cut.segments == found.best.segments
    rows = [row for row in found.rows if row.threshold in (found.rows[0].threshold, 0.5, best)]
    return {"rows": [asdict(row) for row in rows], "seconds": seconds}


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Result and seconds of a call."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
