"""Nodes of a finished run worked off once more, with other memory: steps, bytes, seconds.

    python -m benchmarks.ladder_nodes RUN --level 5 --memory "128 MiB" --memory "64 MiB" [--json]

Nothing of the run changes but the scratch folder of the node, which is removed. What is found is
compared with what the run has.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from emslice.ops.row_tables import sizes_of
from emslice.service.again import plan_again
from emslice.service.stages import stages_of
from emslice.stages import bounded
from emslice.stages.agglomeration import AgglomerateBlocks
from emslice.stages.layout import node_key
from emslice.units import parse_bytes


class Steps(logging.Handler):
    """Steps of the ladder, as `stages/bounded.py` reports them."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        _, step, (read, written) = record.args  # type: ignore[misc]
        self.rows.append({**vars(step), "read": read, "written": written})  # type: ignore[arg-type]


def work_off(stage: AgglomerateBlocks, key: Any, memory: int) -> dict[str, Any]:
    """What a node takes with so much memory; its merges must be those of the run."""
    steps = Steps()
    bounded._log.addHandler(steps)
    bounded._log.setLevel(logging.DEBUG)
    before, cpu = time.perf_counter(), time.process_time()
    found, _ = replace(stage, node_memory=memory)._join(key)
    rest = size = 0
    for rows in found.rest:
        rest, size = rest + len(rows), size + int(sizes_of(rows).sum())
    facts = {"node": node_key(key), "memory": memory, "wall": time.perf_counter() - before,
             "cpu": time.process_time() - cpu, "rest": rest, "rest_bytes": size}  # fmt: skip
    shutil.rmtree(stage.file(key, "scratch"), ignore_errors=True)
    bounded._log.removeHandler(steps)
    expected = stage.merges(key)
    for name in ("child", "parent", "score"):
        assert np.array_equal(getattr(found.merges, name), getattr(expected, name)), name
    assert np.array_equal(found.open_names, stage.open_names(key))
    return {**facts, "merges": len(expected.child), "steps": steps.rows}


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.option("--level", type=int, required=True)
@click.option("--memory", multiple=True, required=True)
@click.option("--json", "as_json", is_flag=True)
def main(run: Path, level: int, memory: Sequence[str], as_json: bool) -> None:
    """Print what the first node of a level takes."""
    stage = stages_of(plan_again(run)).agglomerate
    key = next(iter(stage.frame.octree.nodes(level)))
    for text in memory:
        found = work_off(stage, key, parse_bytes(text))
        if as_json:
            print(json.dumps(found), flush=True)
            continue
        steps = found.pop("steps")
        print(f"{found}; {len(steps)} steps", flush=True)
        for step in steps:
            print(f"    {step}")


if __name__ == "__main__":
    main()
