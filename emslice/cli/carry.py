"""What ``segment``, ``resume`` and ``retry`` have in common: carry out a plan and print the end."""

from __future__ import annotations

import json
import signal

import click

from emslice.cli.progress import Bars, JsonLines, print_error
from emslice.geometry.boxes import n_voxels
from emslice.service.plan import Plan
from emslice.service.segment import segment


def carry_out(plan: Plan, as_json: bool) -> None:
    """Run a plan with bars, or with JSON lines of which the last is the record."""
    for warning in plan.warnings:
        print_error(f"Warning: {warning}")
    # A batch system ends a job by SIGTERM: as with Ctrl-C, the record says that it was stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        summary = segment(plan, JsonLines() if as_json else Bars()).as_dict()
    except KeyboardInterrupt:
        print_error(f"Stopped. What is done is kept; go on by: emslice resume {plan.folder}")
        raise SystemExit(1) from None
    if as_json:
        click.echo(json.dumps({"run": str(plan.folder), **summary}))
        return
    counts = summary["counts"]
    click.echo(f"{counts['fragments']:,} fragments -> {counts['segments']:,} segments")
    if "dust_joined" in counts:
        click.echo(f"dust          {counts['dust_joined']:,} small segments joined a large one, "
                   f"{counts['dust_dropped']:,} had none and are 0")  # fmt: skip
    share = counts["masked_voxels"] / n_voxels(plan.roi)
    if share > 0.001:
        click.echo(f"masked        {share:.1%} of the voxels have no affinity and belong to nobody")
    if share == 1:
        print_error("Warning: everything is masked. Is the volume blank here, or never written?")
    elif counts["segments"] == 0:
        smallest = plan.config.dust.min_size
        print_error(f"Warning: every segment was dust. Is --min-size {smallest} too large here?")
    click.echo(f"segmentation  {plan.folder / 'segmentation.zarr'}")
    click.echo(f"picture       {plan.folder / 'preview.png'}")
    click.echo(f"digest        {summary['digests']['segmentation']}")
