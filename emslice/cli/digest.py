"""``emslice digest``."""

from __future__ import annotations

import click


@click.command("digest", epilog="Example: emslice digest run/segmentation.zarr | tail -1")
@click.argument("volume")
@click.option("--roi", metavar="Z0:Z1,Y0:Y1,X0:X1", help="Box in voxels of the whole volume.")
def command(volume: str, roi: str | None) -> None:
    """Print the digest of a volume, whatever its format.

    Equal digests mean equal voxels, dtype and shape; format, chunks and compression do not matter.
    """
    from emslice.geometry.boxes import parse_roi, show
    from emslice.volumes import open_volume
    from emslice.volumes.digest import digest

    opened = open_volume(volume)
    box = parse_roi(roi, opened.domain) if roi is not None else opened.roi
    click.echo(f"{opened.dtype} {show(box)}", err=True)
    click.echo(digest(opened, box))
