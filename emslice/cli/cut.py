"""``emslice cut``."""

from __future__ import annotations

import json
import signal

import click

EPILOG = """\b
Examples:
  emslice cut run --threshold 0.6
  emslice cut run --threshold 0.6 --out run-0.6.zarr
  emslice cut run --threshold 0.6 --min-size 0 --out with-dust.zarr
"""


@click.command("cut", epilog=EPILOG)
@click.argument("run")
@click.option("--threshold", type=float, required=True, help="Merge while score >= this affinity.")
@click.option(
    "--min-size", type=int, help="Voxels below which a segment is dust.  [that of the run]"
)
@click.option("--out", metavar="VOLUME", help="New volume; RUN stays as it is.")
@click.option("--workers", type=int, help="Other number of workers; changes no voxel.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines for scripts.")
def command(
    run: str,
    threshold: float,
    min_size: int | None,
    out: str | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Relabel a run at another threshold.

    Nothing is predicted, watershed or agglomerated again: the result is that of a run at this
    threshold. It takes the place of RUN's segmentation, or goes to a new VOLUME. Any threshold from
    the run's lowest (agglomeration.lowest_threshold) to 1 can be had.
    """
    from emslice.cli.carry import carry_out
    from emslice.service.cutting import plan_cut

    if out is None:
        carry_out(plan_cut(run, threshold, workers, min_size), as_json)
    else:
        _write(run, threshold, min_size, out, workers, as_json)


def _write(
    run: str,
    threshold: float,
    min_size: int | None,
    out: str,
    workers: int | None,
    as_json: bool,
) -> None:
    from emslice.cli.progress import Bars, JsonLines, print_error
    from emslice.service.cutting import write_cut

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cut = write_cut(run, threshold, out, JsonLines() if as_json else Bars(), workers, min_size)
    except KeyboardInterrupt:
        print_error("Stopped. Nothing was written.")
        raise SystemExit(1) from None
    if as_json:
        click.echo(json.dumps(cut.as_dict()))
        return
    click.echo(f"{cut.segments:,} segments at {threshold:g}")
    click.echo(f"segmentation  {cut.segmentation}")
    click.echo(f"digest        {cut.digest}")
