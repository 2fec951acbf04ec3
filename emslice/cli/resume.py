"""``emslice resume``."""

from __future__ import annotations

from typing import Any

import click

EPILOG = """\b
Examples:
  emslice resume run
  emslice resume run --threshold 0.6
"""


@click.command("resume", epilog=EPILOG)
@click.argument("run")
@click.option("--checkpoint", metavar="CKPT", help="Other weights.")
@click.option("--threshold", type=float, help="Another threshold.")
@click.option("--linkage", help="Another linkage.")
@click.option("--mask", metavar="URL", help="Another mask.")
@click.option("--min-size", type=int, help="Another size below which a segment is dust.")
@click.option("--workers", type=int, help="Other number of workers; changes no voxel.")
@click.option("--set", "assignments", multiple=True, metavar="KEY.SUB=VALUE", help="Any parameter.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines for scripts.")
def command(run: str, assignments: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Go on with a run, or run it again with other parameters.

    Tasks that have a record are not done again. With other parameters, what depends on them is done
    anew, nothing else, and the results take the place of the old ones when all is there.
    """
    from emslice.cli.carry import carry_out
    from emslice.service.again import plan_again

    dotted = {
        "agglomeration.threshold": options.pop("threshold"),
        "agglomeration.linkage": options.pop("linkage"),
        "dust.min_size": options.pop("min_size"),
        **options,
    }
    carry_out(plan_again(run, assignments, dotted), as_json)
