"""``emslice evaluate``."""

from __future__ import annotations

import json

import click


@click.command("evaluate", epilog="Example: emslice evaluate run/segmentation.zarr truth.zarr")
@click.argument("seg")
@click.argument("truth")
@click.option("--roi", metavar="Z0:Z1,Y0:Y1,X0:X1", help="Box in voxels of the whole volume.")
@click.option("--ignore", default=0, show_default=True, type=click.IntRange(0, 2**64 - 1),
              help="True label that is not scored.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def command(seg: str, truth: str, roi: str | None, ignore: int, as_json: bool) -> None:
    """Score a segmentation against the truth.

    Variation of information in bits and adapted Rand error; 0 is perfect. Voxels whose truth is
    --ignore are left out. Without --roi, the box that SEG covers is scored.
    """
    from emslice.service.evaluate import evaluate_volumes

    scores = evaluate_volumes(seg, truth, roi, ignore)
    if as_json:
        click.echo(json.dumps(scores.as_dict()))
        return
    click.echo(f"VOI split  {scores.voi_split:8.4f} bits   neurons cut in pieces")
    click.echo(f"VOI merge  {scores.voi_merge:8.4f} bits   neurons grown together")
    click.echo(f"VOI        {scores.voi:8.4f} bits")
    click.echo(f"ARAND      {scores.arand:8.4f}")
