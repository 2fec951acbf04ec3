"""The model card of a training: what the weights are, whence, and how far to trust them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emslice.ledger.files import write_atomic
from emslice.models.checkpoint import Checkpoint, load_checkpoint
from emslice.models.networks import count_parameters
from emslice.recipes.records import BEST, CONFIG, read_record

NAME = "card.md"

CARD = """# {name}

{network} with {parameters:,} parameters, trained by emslice {emslice} with the recipe `{recipe}`.

    emslice segment raw.zarr run --checkpoint {file}

| | |
|---|---|
| voxel size of the training data | {resolution} nm, z, y, x |
| their grey values | mean {mean:.0f}, standard deviation {std:.0f} (of 255) |
| steps | {step} of {steps}, seed {seed}, torch {torch} |

## Data

{volumes}

Their terms are those of whoever made them, and bind these weights as far as they say so; emslice
ships neither.

## Scores

{scores}

## Limits

Measured on one tissue, one microscope, one voxel size. Other contrast wants `--normalize affine`,
another voxel size wants another pyramid level or another training. The step was chosen on the
held-out sections: report a score on sections that nothing was chosen on.

## Again

    emslice train {recipe} --config {config} --out AGAIN
"""


def write_card(run: Path) -> None:
    """Write ``card.md`` of a run, of its best checkpoint."""
    record, checkpoint = read_record(run), load_checkpoint(run / BEST)
    config, level = record["config"], checkpoint.intensity
    text = CARD.format(
        name=run.resolve().name,
        network=checkpoint.network.name,
        parameters=count_parameters(checkpoint.network),
        emslice=record["emslice"],
        recipe=record["recipe"],
        file=run / BEST,
        config=run / CONFIG,
        resolution=" x ".join(f"{n:g}" for n in checkpoint.resolution_nm or ()),
        mean=level.mean if level else float("nan"),
        std=level.std if level else float("nan"),
        step=checkpoint.provenance["step"],
        steps=config["steps"],
        seed=config["seed"],
        torch=record["torch"],
        volumes="\n".join(_volumes(config["data"])),
        scores=_scores(checkpoint),
    )
    write_atomic(run / NAME, text.encode())


def _volumes(data: dict[str, Any]) -> list[str]:
    if data["layout"]:
        return [f"- `{data['layout']}` as its authors ship it, hold_out {data['hold_out']}"]
    return [
        f"- {use}: `{volume['raw']}`, labels `{volume['labels']}`, {_part(volume)}"
        for use, volumes in (("trained on", data["train"]), ("chosen on", data["validate_on"]))
        for volume in volumes
    ]


def _part(volume: dict[str, Any]) -> str:
    if volume["sections"]:
        begin, end = volume["sections"]
        return f"sections {begin} to {end - 1}"
    return f"roi {volume['roi']}" if volume["roi"] else "all of it"


def _scores(checkpoint: Checkpoint) -> str:
    found = checkpoint.provenance.get("validation")
    if not found:
        return "None: no volume was held out."
    lines = ["On the held-out sections, after segmentation (VOI in bits, truth 0 left out):", ""]
    lines += ["| threshold | VOI split | VOI merge | VOI | ARAND |", "|---|---|---|---|---|"]
    for which in ("default", "best"):
        values = [found[f"{which}_{key}"] for key in ("voi_split", "voi_merge", "voi", "arand")]
        cells = " | ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {found[f'{which}_threshold']:g} ({which}) | {cells} |")
    return "\n".join(lines)
