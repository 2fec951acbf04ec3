"""``emslice evaluate``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from emslice.service.scores import Evaluation

EPILOG = """\b
Examples:
  emslice evaluate run/segmentation.zarr truth.zarr
  emslice evaluate --config configs/evaluate/default.yaml --checkpoint student.ckpt \\
      --checkpoint raw --out scores
"""


@click.command("evaluate", epilog=EPILOG)
@click.argument("seg", required=False)
@click.argument("truth", required=False)
@click.option("--roi", metavar="Z0:Z1,Y0:Y1,X0:X1", help="Box in voxels of the whole volume.")
@click.option("--ignore", type=click.IntRange(0, 2**64 - 1),
              help="True label that is not scored.  [default: 0]")  # fmt: skip
@click.option("--config", "config_file", metavar="FILE", help="YAML file of a test set.")
@click.option("--checkpoint", "checkpoints", multiple=True, metavar="CKPT",
              help="Weights to score on the test set, or raw; may be repeated.")  # fmt: skip
@click.option("--out", metavar="DIR", help="Folder for tables and pictures of a test set.")
@click.option("--root", metavar="DIR", help="Folder that the paths of a test set start from.")
@click.option("--set", "assignments", multiple=True, metavar="KEY.SUB=VALUE",
              help="Any parameter of segmentation, for all volumes of a test set.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def command(
    seg: str | None,
    truth: str | None,
    roi: str | None,
    ignore: int | None,
    config_file: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Score a segmentation against the truth.

    Variation of information in bits and adapted Rand error; 0 is perfect. Voxels whose truth is
    --ignore are left out. Without --roi, the box that SEG covers is scored.

    With --config, score checkpoints on a test set: each predicts and segments every volume, and is
    scored at the default threshold and at the best of a sweep. DIR/scores.csv, sweeps.csv,
    scores.png and sections/ are written. What DIR holds already is not done again. The checkpoint
    'raw' is a baseline without a network: the affinity of two voxels is the darker one.
    """
    if config_file is None:
        _refuse({f"--{name}": value for name, value in options.items()}, "needs --config")
        if seg is None or truth is None:
            raise click.UsageError(f"Missing argument '{'SEG' if seg is None else 'TRUTH'}'.")
        _one(seg, truth, roi, ignore or 0, as_json)
        return
    single = {"SEG": seg, "--roi": roi, "--ignore": ignore}
    _refuse(single, "does not go with --config, whose file names volumes, boxes and labels")
    if options["out"] is None:
        raise click.UsageError("Missing option '--out': the folder for the scores of a test set.")
    _test_set(config_file, as_json, **options)


def _refuse(given: dict[str, Any], reason: str) -> None:
    names = {"--checkpoints": "--checkpoint", "--assignments": "--set"}
    for name, value in given.items():
        if value not in (None, ()):
            raise click.UsageError(f"{names.get(name, name)} {reason}.")


def _one(seg: str, truth: str, roi: str | None, ignore: int, as_json: bool) -> None:
    from emslice.service.evaluate import evaluate_volumes

    scores = evaluate_volumes(seg, truth, roi, ignore)
    if as_json:
        click.echo(json.dumps(scores.as_dict()))
        return
    click.echo(f"VOI split  {scores.voi_split:8.4f} bits   neurons cut in pieces")
    click.echo(f"VOI merge  {scores.voi_merge:8.4f} bits   neurons grown together")
    click.echo(f"VOI        {scores.voi:8.4f} bits")
    click.echo(f"ARAND      {scores.arand:8.4f}")


def _test_set(
    file: str,
    as_json: bool,
    checkpoints: tuple[str, ...],
    out: str,
    assignments: tuple[str, ...],
    root: str | None,
) -> None:
    from emslice.cli.progress import Bars
    from emslice.service.evaluating import evaluate_pairs, plan_evaluation

    plan = plan_evaluation(file, checkpoints, out, assignments, root)
    found = evaluate_pairs(plan, Bars())
    click.echo(json.dumps(found.as_dict()) if as_json else _table(found))


COLUMNS = (
    ("volume", "volume", "{}"),
    ("checkpoint", "checkpoint", "{}"),
    ("split", "voi_split", "{:.4f}"),
    ("merge", "voi_merge", "{:.4f}"),
    ("VOI", "voi", "{:.4f}"),
    ("ARAND", "arand", "{:.4f}"),
    ("at", "threshold", "{:.3g}"),
    ("best VOI", "best_voi", "{:.4f}"),
    ("ARAND", "best_arand", "{:.4f}"),
    ("at", "best_threshold", "{:.3g}"),
    ("predict s", "predict_s", "{:.1f}"),
    ("segment s", "segment_s", "{:.1f}"),
    ("parameters", "parameters", "{:,}"),
    ("MAC/voxel", "mac_per_voxel", "{:,.0f}"),
)
"""Title, name in a row, and how it is shown; a mean has no thresholds."""


def _table(found: Evaluation) -> str:
    cells = [[title for title, _, _ in COLUMNS]]
    for row in found.rows:
        cells.append(["" if row[n] is None else show.format(row[n]) for _, n, show in COLUMNS])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            text.ljust(width) if i < 2 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    pairs = sum(row["threshold"] is not None for row in found.rows)
    return "\n".join(
        [
            *lines,
            f"pairs         {found.done} done, {pairs - found.done} kept",
            f"table         {found.table}",
            f"picture       {found.picture}",
            f"sections      {found.folder / 'sections'}",
        ]
    )
