"""Whole runs on crops of a volume in blocks of one size: memory, seconds, tables, open nodes."""

from __future__ import annotations

import multiprocessing
import pickle
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import yaml

from emslice.cli.progress import Bars
from emslice.config.load import load_config
from emslice.engine.session import peak_bytes
from emslice.ledger.database import Ledger
from emslice.service.plan import Plan, plan_from_affinities
from emslice.service.segment import segment
from emslice.service.stages import stages_of
from emslice.stages.agglomeration import AgglomerateBlocks
from emslice.stages.layout import node_key

Shape = tuple[int, int, int]
Facts = dict[str, Any]


def run_crop(
    url: str, folder: Path, shape: Shape, block: Shape, lowest: float, workers: int = 2
) -> Facts:
    """One run on the crop of that shape at the origin, and what it took."""
    roi = ",".join(f"0:{n}" for n in shape)
    options: Facts = {"roi": roi, "block": block, "workers": workers}
    options["agglomeration.lowest_threshold"] = lowest
    plan = plan_from_affinities(url, folder, load_config(options=options))
    start = time.perf_counter()
    segment(plan, Bars())
    seconds = time.perf_counter() - start
    voxels = shape[0] * shape[1] * shape[2]
    record = yaml.safe_load((folder / "run.yaml").read_text())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        root = pool.apply(_root_memory, (pickle.dumps(stages_of(plan).agglomerate),))
    return {
        "shape": shape, "block": block, "lowest": lowest, "voxels": voxels, "seconds": seconds,
        "stages": {
            name: {"seconds": facts["seconds"], "peak_bytes": facts.get("peak_memory_bytes")}
            for name, facts in record["stages"].items()
        },
        "root": root, "levels": _levels(plan), "table_bytes": _table_bytes(plan),
    }  # fmt: skip


def _levels(plan: Plan) -> list[Facts]:
    """Of each level of the octree, what its nodes left open on average, and the largest table."""
    agglomerate = stages_of(plan).agglomerate
    facts: dict[int, list[Facts]] = defaultdict(list)
    with Ledger(plan.folder / "ledger.sqlite", create=False) as ledger:
        for key, values in ledger.facts_of(agglomerate.fingerprint):
            facts[int(key.split("/")[0])].append(values)
    rows = []
    for level, values in sorted(facts.items()):
        nodes = list(agglomerate.frame.octree.nodes(level))
        sizes = [agglomerate.file(node, "rest.parquet").stat().st_size for node in nodes]
        row: Facts = {"level": level, "nodes": len(values), "rest_bytes": max(sizes)}
        for name in ("open_names", "open_edges", "merges"):
            row[name] = max(v[name] for v in values)
        rows.append(row)
    return rows


def _table_bytes(plan: Plan) -> dict[str, int]:
    """Bytes on disk of each stage."""
    folders = {name: plan.stage_folder(name) for name in plan.fingerprints}
    return {
        name: sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        for name, folder in folders.items()
        if folder.exists()
    }


def _root_memory(pickled: bytes) -> Facts:
    """Bytes that the task of the root takes beyond a process that has done a block's."""
    stage: AgglomerateBlocks = pickle.loads(pickled)
    tree = stage.frame.octree
    with stage.open() as process:
        process(node_key(next(iter(tree.nodes(0)))))
        before = _resident()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        start = time.process_time()
        process(node_key(tree.root))
        seconds = time.process_time() - start
    children = list(tree.children(tree.root)) or [tree.root]
    rows = [pq.read_metadata(stage.file(child, "rest.parquet")).num_rows for child in children]
    return {"bytes": peak_bytes() - before, "seconds": seconds, "rows_in": sum(rows)}


def _resident() -> int:
    """Resident bytes of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@click.command()
@click.argument("url")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--shape", required=True)
@click.option("--block", default="16,256,256", show_default=True)
@click.option("--lowest", default=0.3, show_default=True)
@click.option("--workers", default=2, show_default=True)
def main(url: str, folder: Path, shape: str, block: str, lowest: float, workers: int) -> None:
    """Run one crop and print what it took, as YAML."""
    shapes = (tuple(int(n) for n in text.split(",")) for text in (shape, block))
    found = run_crop(url, folder, *shapes, lowest, workers)
    print(yaml.safe_dump(_plain(found), sort_keys=False))


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    main()
