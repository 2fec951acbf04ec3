"""A run's volume as a cube cut out of more: its octree again, with every outer face open.

    python -m benchmarks.growth_open RUN FOLDER [--lowest 0.5 0.3 0.1]

What is open at the root is what one graph of the whole volume would leave (docs/design/0005), so
that the volume may be larger than a graph in memory. Fragments are those of the run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml

from emslice.geometry.boxes import Coordinate, Roi
from emslice.geometry.grid import BlockGrid
from emslice.ops.faces import touching
from emslice.ops.linkage import integer_threshold
from emslice.service.again import plan_again
from emslice.service.stages import stages_of
from emslice.stages.agglomeration import AgglomerateBlocks
from emslice.stages.layout import Frame, node_key


@dataclass(frozen=True)
class OpenFrame(Frame):
    """Blocks of a box behind whose faces there is more of the volume."""

    @property
    def box(self) -> Roi:
        """The ROI and a voxel around it."""
        return super().box.grow(1, 1)

    @property
    def grid(self) -> BlockGrid:
        """Blocks of the ROI."""
        return BlockGrid(super().box, Coordinate(self.block_shape))


def open_stage(run: Path, folder: Path, lowest: float) -> AgglomerateBlocks:
    """The stage of a run that keeps its tables elsewhere, and takes all faces for open."""
    stage = stages_of(plan_again(run)).agglomerate
    fragments = stage.stitched.fragments
    frame = OpenFrame(**vars(fragments.frame))
    stitched = replace(stage.stitched, fragments=replace(fragments, frame=frame))
    place = str(folder / f"{lowest:g}")
    return replace(stage, stitched=stitched, lowest=integer_threshold(lowest), folder=place)


def measure_open(run: Path, folder: Path, lowest: float) -> dict[str, Any]:
    """What is open at the root, and the most at each level."""
    stage = open_stage(run, folder, lowest)
    tree, levels = stage.frame.octree, []
    with stage.open() as process:
        for level in range(tree.root.level + 1):
            nodes, found = list(tree.nodes(level)), []
            for node in nodes:
                stage.file(node, "node.npz").parent.mkdir(parents=True, exist_ok=True)
                found.append(process(node_key(node)))
            names, rows = (max(f[k] for f in found) for k in ("open_names", "open_edges"))
            levels.append({"nodes": len(nodes), "open_nodes": names, "open_rows": rows})
    on_face = len(touching(stage._sides(tree.root), stage.frame.box))
    shutil.rmtree(stage.folder)
    counts = yaml.safe_load((run / "run.yaml").read_text())["counts"]
    return {
        "run": run.name, "lowest": lowest, "fragments": counts["fragments"], "touching": on_face,
        **levels[-1], "levels": levels,
    }  # fmt: skip


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--lowest", type=float, multiple=True, default=[0.5, 0.3, 0.1], show_default=True)
def main(run: Path, folder: Path, lowest: Sequence[float]) -> None:
    """Print a JSON line for each lowest threshold."""
    for threshold in lowest:
        found = measure_open(run, folder, threshold)
        print(json.dumps(found, default=np.generic.item), flush=True)


if __name__ == "__main__":
    main()
