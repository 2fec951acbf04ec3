"""Memory of each stage: what the plan says a task takes, and what it took.

    python -m benchmarks.memory [--json] [--block 32,512,512] [--sections 100]

Reads ``EMSLICE_DATA`` (default ../shared/data). Every stage runs in a process of its own, so that
its peak (VmHWM) is that of its largest task, the interpreter and its libraries included.
"""

from __future__ import annotations

import json
import multiprocessing
import pickle
import tempfile
from pathlib import Path
from typing import Any

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--block", default="32,512,512", show_default=True)
@click.option("--sections", default=100, show_default=True)
def main(as_json: bool, block: str, sections: int) -> None:
    """Compare the plan with what each stage took."""
    rows: list[dict[str, Any]] = []
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        with spawn.Pool(1) as pool:
            stages = pool.apply(_plan, (name, block, sections))
        for stage in stages:
            with spawn.Pool(1) as pool:
                rows.append(pool.apply(_carry_out, (stage,)))
    print(json.dumps({"stages": rows}) if as_json else _table(rows))


def _plan(folder: str, block: str, sections: int) -> list[bytes]:
    """All stages, pickled: what they import is for the processes that run them."""
    from benchmarks.main_job import DATA
    from emslice.config.load import load_config
    from emslice.service.plan import plan_from_raw
    from emslice.service.stages import stages_of
    from emslice.volumes.importing import import_volume

    options = {
        "checkpoint": str(DATA / "checkpoints" / "cad_AC34.ckpt"), "affinities": "keep",
        "roi": f"0:{sections},:,:", "block": tuple(int(n) for n in block.split(",")),
    }  # fmt: skip
    raw = import_volume(f"{DATA}/ac4_crop.h5:raw", Path(folder) / "raw.zarr").url
    plan = plan_from_raw(raw, Path(folder) / "run", load_config(None, [], options))
    return [pickle.dumps(stage) for stage in stages_of(plan).in_order()]


def _carry_out(pickled: bytes) -> dict[str, Any]:
    """Run all tasks of a stage; what they took, and what the plan said."""
    from emslice.engine.coordinator import run_stage
    from emslice.engine.records import MemoryRecords
    from emslice.engine.serial import SerialExecutor

    stage = pickle.loads(pickled)
    with SerialExecutor() as executor:
        result = run_stage(stage, executor, MemoryRecords())
    assert result.is_complete
    return {
        "stage": stage.name,
        "tasks": result.total,
        "planned": stage.peak_bytes,
        "measured": result.peak_bytes,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'stage':12s} {'tasks':>6s} {'planned':>10s} {'measured':>10s} {'ratio':>6s}"]
    for row in rows:
        planned, measured = (row[k] / 2**20 for k in ("planned", "measured"))
        lines.append(
            f"{row['stage']:12s} {row['tasks']:6d} {planned:6.0f} MiB {measured:6.0f} MiB "
            f"{measured / planned:6.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
