"""The ``emslice`` command."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from emslice.errors import EmsliceError

COMMANDS = {  # name -> (module, one line of help); the module is imported only when called
    "import": ("emslice.cli.importing", "Turn HDF5, TIFF, PNG or NumPy data into a zarr volume."),
    "segment": ("emslice.cli.segment", "Segment a volume on this machine."),
    "resume": ("emslice.cli.resume", "Go on with a run, or run it again with other parameters."),
    "retry": ("emslice.cli.retry", "Give failed tasks another chance, and go on."),
    "cut": ("emslice.cli.cut", "Relabel a run at another threshold."),
    "sweep": ("emslice.cli.sweep", "Score a run at many thresholds against the truth."),
    "status": ("emslice.cli.status", "Show how far a run has come."),
    "evaluate": ("emslice.cli.evaluate", "Score a segmentation against the truth."),
    "digest": ("emslice.cli.digest", "Print the digest of a volume, whatever its format."),
    "train": ("emslice.cli.train", "Train a student, or a teacher, by a recipe."),
    "demo": ("emslice.cli.demo", "Segment a synthetic volume and draw the result."),
}


class LazyGroup(click.Group):
    """A group whose help costs no imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: emslice segment raw.zarr run --checkpoint student.ckpt",
)
@click.version_option(package_name="emslice")
def cli() -> None:
    """Segment neurons in electron-microscopy volumes of any size."""


def main() -> None:
    """Run the command; errors made for users are one line, others are our bugs."""
    try:
        cli()
    except EmsliceError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
