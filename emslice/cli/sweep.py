"""``emslice sweep``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from emslice.service.sweeping import Sweep


@click.command("sweep", epilog="Example: emslice sweep run --truth truth.zarr")
@click.argument("run")
@click.option("--truth", required=True, metavar="VOLUME", help="True labels.")
@click.option("--ignore", default=0, show_default=True, type=click.IntRange(0, 2**64 - 1),
              help="True label that is not scored.")  # fmt: skip
@click.option("--roi", metavar="Z0:Z1,Y0:Y1,X0:X1", help="Box in voxels of the whole volume.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def command(run: str, truth: str, ignore: int, roi: str | None, as_json: bool) -> None:
    """Score a run at many thresholds against the truth.

    50 thresholds from the run's lowest to 1, each with the scores that 'emslice evaluate' gives
    for 'emslice cut --min-size 0' there (dust stays in), from the merges and one pass over the
    voxels. RUN/sweep.csv and RUN/sweep.png are written. Without --roi, the box that RUN and truth
    both cover is scored.
    """
    from emslice.cli.progress import Bars
    from emslice.service.sweeping import sweep

    found = sweep(run, truth, Bars(), roi, ignore)
    click.echo(json.dumps(found.as_dict()) if as_json else _table(found))


def _table(found: Sweep) -> str:
    best = found.best
    lines = ["threshold   VOI split  VOI merge        VOI      ARAND     segments"]
    for row in found.rows:
        note = "  best" if row == best else ""
        note += "  this run" if row.threshold == found.threshold else ""
        lines.append(
            f"{row.threshold:9.4f} {row.voi_split:11.4f} {row.voi_merge:10.4f} {row.voi:10.4f} "
            f"{row.arand:10.4f} {row.segments:12,d}{note}"
        )
    return "\n".join(
        [
            *lines,
            f"scored        {found.roi}",
            f"best          {best.threshold:g}: VOI {best.voi:.4f} bits, ARAND {best.arand:.4f}",
            f"table         {found.table}",
            f"picture       {found.picture}",
        ]
    )
