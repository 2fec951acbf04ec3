"""``emslice import``."""

from __future__ import annotations

import click


@click.command("import", epilog="Example: emslice import ac4.h5:raw ac4.zarr --resolution 30,6,6")
@click.argument("src")
@click.argument("dst")
@click.option("--resolution", metavar="Z,Y,X", help="Nanometres per voxel.  [as SRC states]")
def command(src: str, dst: str, resolution: str | None) -> None:
    """Turn HDF5, TIFF, PNG or NumPy data into a zarr volume.

    SRC is file.h5:dataset, a TIFF stack, a folder of TIFF or PNG sections, a .npy file, or a zarr
    or N5 volume. DST appears when it is complete.
    """
    from emslice.cli.progress import byte_bar
    from emslice.geometry.boxes import n_voxels, parse_triple
    from emslice.units import human_bytes
    from emslice.volumes.importing import import_volume

    nm = parse_triple(resolution, "--resolution", float) if resolution else None
    with byte_bar("import") as progress:
        volume = import_volume(src, dst, nm, progress=progress)
    voxels = " x ".join(str(int(n)) for n in volume.roi.shape)
    size = n_voxels(volume.roi) * (volume.channels or 1) * volume.dtype.itemsize
    click.echo(f"{dst}: {voxels} voxels of {volume.dtype}, {human_bytes(size)}")
    if volume.resolution_nm is None:
        click.echo("Its resolution is not known; give it with --resolution z,y,x.", err=True)
