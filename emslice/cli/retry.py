"""``emslice retry``."""

from __future__ import annotations

import click


@click.command("retry", epilog="Example: emslice retry run --failed")
@click.argument("run")
@click.option("--failed", is_flag=True, required=True, help="The tasks that failed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines for scripts.")
def command(run: str, failed: bool, as_json: bool) -> None:
    """Give failed tasks another chance, and go on.

    The result is that of a run in which nothing had failed.
    """
    from emslice.cli.carry import carry_out
    from emslice.cli.progress import print_error
    from emslice.service.again import plan_again, release_failed

    plan = plan_again(run)
    for stage, key in release_failed(run):
        print_error(f"again: {stage} {key}")
    carry_out(plan, as_json)
