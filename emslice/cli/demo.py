"""``emslice demo``."""

from __future__ import annotations

import click


@click.command("demo", epilog="Example: emslice demo --out my-demo")
@click.option("--out", default="emslice-demo", show_default=True, help="New folder.")
def command(out: str) -> None:
    """Segment a synthetic volume and draw the result.

    Makes a volume of tubes with membranes and its truth, segments it with the small student that
    comes with emslice, scores it, and draws raw, affinity, segmentation and truth side by side.
    """
    from emslice.cli.progress import Bars
    from emslice.demo.run import run_demo

    demo = run_demo(out, Bars())
    counts, scores = demo.record.counts, demo.scores
    click.echo(f"{counts['fragments']:,} fragments -> {counts['segments']:,} segments")
    click.echo(f"VOI {scores.voi_split:.3f} split + {scores.voi_merge:.3f} merge bits")
    click.echo(f"ARAND {scores.arand:.3f}")
    click.echo(f"Look at {demo.picture}")
