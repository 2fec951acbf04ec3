"""``emslice train``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

EPILOG = """\b
Examples:
  emslice train supervised --config configs/train/ac4_small.yaml --out runs/supervised
  emslice train cad --config configs/train/ac4_small.yaml --set steps=2000 --out runs/cad
  emslice train resume runs/cad
  emslice train ls runs
"""
RECIPES = {  # as emslice.recipes.building has them; here, so that help costs no imports
    "supervised": "A student learns from labels alone.",
    "teacher3d": "A 3D network learns from labels.",
    "cad": "A 3D teacher teaches a student (CAD; FGI).",
    "cad_iad": "CAD, and a SAM teacher beside it (EM-SliceCrafter; IAD, FGI).",
}


class TrainGroup(click.Group):
    """Says which packages are missing, rather than that an import failed."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] == "emslice":
                raise
            from emslice.errors import ConfigError

            raise ConfigError(
                f"emslice train needs {error.name}, which is not installed: "
                f"pip install 'emslice[train]'"
            ) from error


@click.group("train", cls=TrainGroup, epilog=EPILOG)
def command() -> None:
    """Train a student, or a teacher, by a recipe.

    A training is a folder. best.ckpt, of the step that was best on the held-out volume, is what
    `emslice segment --checkpoint` takes.
    """


def _recipe(name: str, text: str) -> click.Command:
    @click.command(name, help=text, short_help=text, epilog=EPILOG)
    @click.option("--config", "file", metavar="FILE", required=True, help="YAML of parameters.")
    @click.option("--set", "assignments", multiple=True, metavar="KEY.SUB=VALUE",
                  help="Any parameter.")  # fmt: skip
    @click.option("--root", metavar="DIR", help="Folder that the paths of volumes start from.")
    @click.option("--out", required=True, metavar="RUN", help="New folder.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON lines for scripts.")
    def train(
        file: str, assignments: tuple[str, ...], root: str | None, out: str, as_json: bool
    ) -> None:
        from emslice.config.load import load_as
        from emslice.config.training import TrainConfig
        from emslice.recipes.running import start

        config = load_as(TrainConfig, file, assignments, {"data.root": root})
        _report(start(name, config, out, _watch(as_json)), as_json)

    return train


for _name, _text in RECIPES.items():
    command.add_command(_recipe(_name, _text))


@command.command("resume", epilog="Example: emslice train resume runs/cad")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines for scripts.")
def resume_command(run: str, as_json: bool) -> None:
    """Go on with a training that was stopped or died, as if it had not been."""
    from emslice.recipes.running import resume

    _report(resume(run, _watch(as_json)), as_json)


@command.command("ls", epilog="Example: emslice train ls runs")
@click.argument("folder", default=".")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def list_command(folder: str, as_json: bool) -> None:
    """List the trainings in a folder: recipe, steps, state, VOI of the best step."""
    from dataclasses import asdict

    from emslice.recipes.listing import list_runs

    rows = list_runs(folder)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows]))
        return
    for row in rows:
        best = f"VOI {row.best_voi:.3f} at step {row.best_step}" if row.best_voi is not None else ""
        click.echo(f"{row.run:32s} {row.recipe:12s} {row.step:>7d}/{row.steps:<7d} "
                   f"{row.state:9s} {best}")  # fmt: skip


@command.command("ablate", epilog="Example: emslice train ablate --config "
                 "configs/train/ablation_ac4.yaml --root /data --out runs/ablation")  # fmt: skip
@click.option("--config", "file", metavar="FILE", required=True, help="YAML of an ablation.")
@click.option("--root", metavar="DIR", help="Folder that the paths of volumes start from.")
@click.option("--out", required=True, metavar="DIR", help="Folder; what it holds is gone on with.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def ablate_command(file: str, root: str | None, out: str, as_json: bool) -> None:
    """Train variants with several seeds, score them on a test set, and compare them.

    Finished trainings and scores in DIR are kept, stopped trainings resumed.
    """
    from emslice.cli.progress import Bars, step_bar
    from emslice.experiments.ablation import run_ablation

    found, scored = run_ablation(
        file, out, root, lambda name: lambda done, n: step_bar(done, n, name), Bars()
    )
    if as_json:
        click.echo(json.dumps({**found.as_dict(), "scores": list(scored.rows)}))
        return
    click.echo(found.text())
    click.echo(
        f"{out}/ablation.csv, ablation_runs.csv, ablation.png; scores of all: {scored.table}"
    )


@command.command("check", epilog="Example: emslice train check --config "
                 "configs/train/cremi_a.yaml --root /data")  # fmt: skip
@click.option("--config", "file", metavar="FILE", help="YAML of a training.")
@click.option("--layout", metavar="NAME", help="Data set as its authors ship it, such as cremi.")
@click.option("--root", metavar="DIR", help="Folder that the paths of volumes start from.")
def check_command(file: str | None, layout: str | None, root: str | None) -> None:
    """Say what is missing or wrong in the data of a training, all of it at once."""
    from emslice.recipes.checking import check_data

    if (file is None) == (layout is None):
        raise click.UsageError("give --config or --layout.")
    found, problems = check_data(file, layout, root)
    for line in found:
        click.echo(line)
    for problem in problems:
        click.echo(f"wrong: {problem}", err=True)
    if problems:
        raise SystemExit(2)


def _watch(as_json: bool) -> Callable[[int, int], Callable[[float, float], None]]:
    from emslice.cli.progress import json_steps, step_bar

    return json_steps if as_json else step_bar


def _report(trained: Any, as_json: bool) -> None:
    from emslice.recipes.running import is_first_process

    if not is_first_process():
        return
    found = {
        "run": str(trained.folder),
        "steps": trained.steps,
        "best_voi": trained.best if trained.best_step is not None else None,
        "best_step": trained.best_step,
    }
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{trained.folder / 'best.ckpt'}  after {trained.steps} steps")
    if trained.best_step is not None:
        click.echo(
            f"VOI {trained.best:.4f} bits on the held-out volume, at step {trained.best_step}"
        )
