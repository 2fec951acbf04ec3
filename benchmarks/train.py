"""How fast recipes train, what they hold, whether they wait for crops; and what training gives.

    python -m benchmarks.train [--json] [--quick] [--runs FOLDER] [--threads 1]

Reads ``EMSLICE_DATA`` (default ../shared/data): ac4_crop. Throughput: every recipe for some steps
with the networks of configs/train/ac4_pairs_of_crops.yaml, each in a process of its own. Learning:
the ablation of configs/train/ablation_ac4.yaml, an hour and a half of one core; what ``--runs``
holds already is not done again. ``--quick`` leaves learning out.

Keys: ``crops_per_s`` and ``wait_share`` by recipe, ``voi_val`` (of the chosen step, on sections
70-79) and ``voi_test`` (80-99, threshold 0.5) by variant, in the order of ``seeds``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from emslice.config.ablation import load_ablation
from emslice.experiments.ablation import run_ablation
from emslice.models.checkpoint import load_checkpoint
from emslice.recipes.building import RECIPES
from emslice.recipes.records import BEST
from emslice.recipes.running import Watch
from emslice.training.metrics import read_metrics

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("EMSLICE_DATA", ROOT.parent / "shared" / "data"))
TRAIN = ROOT / "configs/train/ac4_pairs_of_crops.yaml"
ABLATION = ROOT / "configs/train/ablation_ac4.yaml"
WARM = 4
"""Steps that are not counted: kernels are chosen in them."""

CHILD = """
import resource, sys
from emslice.cli.main import main
sys.argv = ["emslice", *sys.argv[1:]]
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def throughput(
    recipe: str, run: Path, steps: int, threads: int, frozen: Path | None = None
) -> dict[str, Any]:
    """Crops a second, share of the time waiting for them, and peak memory of one recipe."""
    volume = {"raw": f"{DATA}/ac4_crop.h5:raw", "labels": f"{DATA}/ac4_crop.h5:labels"}
    changes: dict[str, Any] = {
        "steps": WARM + steps,
        "log_every": WARM,
        "threads": threads,
        "data.train": [{**volume, "sections": [0, 70]}],
        "data.validate_on": [],
        "data.pairs": {"crop": [2, 128, 128], "batch": 8},
        "optimiser.warmup": 1,
    }
    if recipe == "cad_iad":
        changes["sam"] = {"encoder": "mobile_sam", "size": "random_tiny"}
    if recipe == "supervised":
        changes["crops"] = "pairs"
    if frozen is not None:
        changes |= {"teacher.weights": str(frozen), "teacher.frozen": True}
    sets = [part for k, v in changes.items() for part in ("--set", f"{k}={json.dumps(v)}")]
    child = subprocess.run(
        [sys.executable, "-c", CHILD, "train", recipe, "--config", str(TRAIN), *sets,
         "--out", str(run)],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    rows = [r for r in read_metrics(run) if r["split"] == "speed" and int(r["step"]) > WARM]
    means = {
        name: sum(float(r["value"]) for r in rows if r["name"] == name)
        / sum(r["name"] == name for r in rows)
        for name in ("steps_per_s", "wait_share")
    }
    crops = {"supervised": 8, "teacher3d": 3, "cad": 3, "cad_iad": 11}[recipe]
    return {
        "recipe": recipe + (" (frozen)" if frozen else ""),
        "steps_per_s": means["steps_per_s"],
        "crops_per_s": crops * means["steps_per_s"],
        "wait_share": means["wait_share"],
        "peak_mib": int(child.stderr.split()[-1]) / 1024,
    }


def learning(runs: Path) -> dict[str, Any]:
    """Scores of each seed of each variant, from trainings that are done or done now."""
    found, _ = run_ablation(ABLATION, runs, str(DATA), _silent, _Quiet())
    ablation = load_ablation(ABLATION)
    validated = {
        variant: [_validated(runs / f"{variant}-{seed}") for seed in ablation.seeds]
        for variant in ablation.variants
    }
    tested = {
        variant: [run["voi"] for run in found.runs if run["variant"] == variant]
        for variant in ablation.variants
    }
    return {"seeds": list(ablation.seeds), "voi_val": validated, "voi_test": tested}


def _validated(run: Path) -> float:
    return float(load_checkpoint(run / BEST).provenance["validation"]["best_voi"])


def _silent(name: str) -> Watch:
    print(f"training {name}", file=sys.stderr, flush=True)
    return lambda done, steps: lambda loss, best: None


class _Quiet:
    """A reporter that says nothing."""

    def stage(self, name: str, voxels: int) -> AbstractContextManager[Callable[[int], None]]:
        return nullcontext(lambda n: None)


@click.command()
@click.option("--json", "as_json", is_flag=True)
@click.option("--quick", is_flag=True, help="Throughput only.")
@click.option("--runs", default="runs/ablation", show_default=True, type=click.Path(path_type=Path))
@click.option("--threads", default=1, show_default=True)
@click.option("--steps", default=16, show_default=True, help="That are timed.")
def main(as_json: bool, quick: bool, runs: Path, threads: int, steps: int) -> None:
    """Print throughput by recipe, and scores by variant and seed."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        rows = [throughput(recipe, home / recipe, steps, threads) for recipe in RECIPES]
        teacher = home / "teacher3d" / BEST
        rows.append(throughput("cad", home / "frozen", steps, threads, teacher))
    found: dict[str, Any] = {
        "crops_per_s": {row["recipe"]: row["crops_per_s"] for row in rows},
        "wait_share": {row["recipe"]: row["wait_share"] for row in rows},
        "peak_mib": {row["recipe"]: row["peak_mib"] for row in rows},
    }
    if not quick:
        found |= learning(runs)
    if as_json:
        print(json.dumps(found))
        return
    print("| recipe | steps/s | crops/s | waiting for crops | peak MiB |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['recipe']} | {row['steps_per_s']:.2f} | {row['crops_per_s']:.1f} "
              f"| {100 * row['wait_share']:.1f} % | {row['peak_mib']:.0f} |")  # fmt: skip
    for name in ("voi_val", "voi_test"):
        for variant, values in found.get(name, {}).items():
            shown = ", ".join(f"{value:.3f}" for value in values)
            print(f"{name} {variant}: {shown}; mean {sum(values) / len(values):.3f}")


if __name__ == "__main__":
    main()
