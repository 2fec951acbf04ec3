"""``emslice segment``."""

from __future__ import annotations

from typing import Any

import click

EPILOG = """\b
Examples:
  emslice segment raw.zarr run --checkpoint student.ckpt
  emslice segment raw.zarr run --config configs/segment/ac4.yaml --roi 0:40,:,:
  emslice segment raw.zarr run --checkpoint student.ckpt --mask tissue.zarr
  emslice segment raw.zarr run --checkpoint student.ckpt --normalize match
  emslice segment --from-affinities affinities.zarr run --threshold 0.6
  emslice segment --from-affinities affinities.zarr run --set fragments.dimensions=3
"""


@click.command("segment", epilog=EPILOG)
@click.argument("paths", nargs=-1, metavar="[RAW] RUN")
@click.option("--from-affinities", metavar="AFF", help="Start from stored affinities, not RAW.")
@click.option("--checkpoint", metavar="CKPT", help="Weights of a student or a 3D network.")
@click.option("--normalize", metavar="MODE", help="none, affine, match, clahe, auto.  [auto]")
@click.option("--threshold", type=float, help="Merge while score >= this affinity.  [0.5]")
@click.option("--linkage", metavar="NAME", help="quantile_max, quantile, mean.  [quantile_max]")
@click.option("--min-size", type=int, help="Voxels below which a segment is dust; 0: none.  [100]")
@click.option("--roi", metavar="Z0:Z1,Y0:Y1,X0:X1", help="Box in voxels of the whole volume.")
@click.option("--mask", metavar="URL", help="Volume; voxels where it is 0 are left out.")
@click.option("--affinities", metavar="keep|drop", help="What becomes of them.  [drop]")
@click.option("--block", metavar="Z,Y,X", help="Unit of work; never changes the result.")
@click.option("--workers", type=int, help="Processes.  [one for each core]")
@click.option("--config", "config_file", metavar="FILE", help="YAML file of parameters.")
@click.option("--set", "assignments", multiple=True, metavar="KEY.SUB=VALUE", help="Any parameter.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines for scripts.")
def command(
    paths: tuple[str, ...],
    from_affinities: str | None,
    config_file: str | None,
    assignments: tuple[str, ...],
    as_json: bool,
    block: str | None,
    **options: Any,
) -> None:
    """Segment a volume on this machine.

    RAW is a zarr or N5 volume (uint8, or uint16 with raw.window), RUN a new folder:
    segmentation.zarr, run.yaml, preview.png and stages/ are written there. A segment smaller than
    --min-size is dust: it joins the neighbour of at least that size to which its affinities add up
    to the most, or becomes 0 if there is none.

    --normalize moves grey values towards those that the network was trained on: affine gives each
    section their mean and standard deviation, match gives each the histogram of the volume first,
    clahe equalises cell by cell. Histograms are of all of the volume, whatever the --roi. auto is
    affine for the published students for which that was measured to help, or none.
    """
    from emslice.config.load import load_config
    from emslice.geometry.boxes import parse_triple

    wanted = 2 if from_affinities is None else 1
    if len(paths) != wanted:
        names = "RAW RUN" if from_affinities is None else "RUN"
        raise click.UsageError(f"expected {names}, got {' '.join(paths) or 'nothing'}.")
    dotted = {
        "raw.normalize": options.pop("normalize"),
        "agglomeration.threshold": options.pop("threshold"),
        "agglomeration.linkage": options.pop("linkage"),
        "dust.min_size": options.pop("min_size"),
        "block": list(parse_triple(block, "--block")) if block else None,
        **options,
    }
    config = load_config(config_file, assignments, dotted)
    _run(paths, from_affinities, config, as_json)


def _run(paths: tuple[str, ...], from_affinities: str | None, config: Any, as_json: bool) -> None:
    from emslice.cli.carry import carry_out
    from emslice.service.plan import plan_from_affinities, plan_from_raw

    if from_affinities is not None:
        plan = plan_from_affinities(from_affinities, paths[0], config)
    else:
        plan = plan_from_raw(paths[0], paths[1], config)
    carry_out(plan, as_json)
