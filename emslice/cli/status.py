"""``emslice status``."""

from __future__ import annotations

import json
import time

import click

WATCH_S = 1.0
STALE_S = 15.0


@click.command("status", epilog="Example: emslice status run --watch")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.option("--watch", is_flag=True, help="Print until the run has ended.")
def command(run: str, as_json: bool, watch: bool) -> None:
    """Show how far a run has come.

    Reads one small file that the coordinator renews every second; works on any host that sees the
    run folder. A run whose coordinator is silent is shown as interrupted.
    """
    from emslice.ledger.status import is_stale, read_status
    from emslice.volumes.places import local_path

    while True:
        status = read_status(local_path(run))
        content = status.as_dict()
        if status.state == "running" and is_stale(status, time.time(), STALE_S):
            content["state"] = "interrupted"
        click.echo(json.dumps(content) if as_json else _table(content))
        if not watch or content["state"] != "running":
            return
        time.sleep(WATCH_S)


def _table(content: dict) -> str:  # type: ignore[type-arg]
    lines = [f"{'stage':12s} {'done':>9s} {'failed':>7s} {'running':>8s} {'total':>9s}"]
    lines += [
        f"{s['name']:12s} {s['done']:9,d} {s['failed']:7,d} {s['running']:8,d} {s['total']:9,d}"
        for s in content["stages"]
    ]
    left = content["eta_s"]
    rest = f", {left:.0f} s left" if content["state"] == "running" and left is not None else ""
    lines.append(f"{content['state']}, {content['blocks_per_s']:.2f} tasks/s{rest}")
    return "\n".join(lines)
