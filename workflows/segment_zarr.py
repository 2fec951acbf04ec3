"""From an image stack to scored neurons, in Python: import, segment, evaluate.

    python workflows/segment_zarr.py ac4_crop.h5:raw cad_AC34.ckpt out \
        --truth ac4_crop.h5:labels --roi 0:40,:,:

Each step is also a command (``emslice import``, ``segment``, ``evaluate``); this script shows what
they call.
"""

from __future__ import annotations

from pathlib import Path

import click

from emslice.cli.progress import Bars
from emslice.config.load import load_config
from emslice.errors import ConfigError, EmsliceError
from emslice.geometry.boxes import Roi, parse_roi, show
from emslice.models.checkpoint import load_checkpoint
from emslice.service.evaluate import evaluate_volumes
from emslice.service.plan import plan_from_raw
from emslice.service.segment import segment
from emslice.volumes.importing import import_volume
from emslice.volumes.sources import Source, open_source


@click.command()
@click.argument("source")
@click.argument("checkpoint")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--truth", help="Labels to score against, in any format that can be imported.")
@click.option("--roi", help="Box z0:z1,y0:y1,x0:x1 in voxels of the whole volume.")
@click.option("--config", "config_file", help="YAML file of parameters.")
def main(
    source: str,
    checkpoint: str,
    out: Path,
    truth: str | None,
    roi: str | None,
    config_file: str | None,
) -> None:
    """Segment SOURCE with CHECKPOINT; everything is written under OUT."""
    try:
        # The cheap checks come first: a mistake is found before gigabytes are copied.
        config = load_config(config_file, options={"checkpoint": checkpoint, "roi": roi})
        load_checkpoint(checkpoint)
        check_sources(source, truth, config.roi)
        raw = import_volume(source, out / "raw.zarr")
        plan = plan_from_raw(raw.url, out / "run", config)
        for warning in plan.warnings:
            click.echo(f"Warning: {warning}", err=True)
        record = segment(plan, Bars())
        click.echo(f"{record.counts['segments']:,} segments in {out / 'run'}")
        if truth:
            labels = import_volume(truth, out / "truth.zarr")
            scores = evaluate_volumes(str(out / "run" / "segmentation.zarr"), labels.url)
            click.echo(f"VOI {scores.voi:.3f} bits, ARAND {scores.arand:.3f}")
    except EmsliceError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(error.exit_code) from error


def check_sources(source: str, truth: str | None, roi: str | None) -> None:
    """Refuse a box that leaves SOURCE, and a truth that cannot score it."""
    with open_source(source) as raw:
        whole = extent(raw)
    box = parse_roi(roi, whole) if roi else whole
    if truth is None:
        return
    with open_source(truth) as labels:
        if labels.dtype.kind not in "bui" or len(labels.shape) != 3:
            raise ConfigError(
                f"--truth {truth}: holds {labels.dtype}, shape {labels.shape}; "
                f"expected integer labels (Z, Y, X)."
            )
        if not extent(labels).contains(box):
            raise ConfigError(
                f"--truth {truth}: covers {show(extent(labels))}, not all of {show(box)}. "
                f"Choose a box that both cover by --roi."
            )


def extent(source: Source) -> Roi:
    """What a source covers, in voxels of the whole volume."""
    return Roi((0, 0, 0), source.shape[-3:]) if source.volume is None else source.volume.roi


if __name__ == "__main__":
    main()
