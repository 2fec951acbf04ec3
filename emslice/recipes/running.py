"""A training as a folder: begun, gone on with, looked at.

``training.yaml`` and ``config.yaml`` say what is trained, ``state.pt`` how far it is,
``metrics.csv`` how it went; ``best.ckpt`` and ``last.ckpt`` are what `emslice segment` takes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only

from emslice.config.load import load_as
from emslice.config.training import TrainConfig
from emslice.errors import ConfigError
from emslice.recipes.building import RECIPES
from emslice.recipes.ready import Ready, Trained
from emslice.recipes.records import CONFIG, RECORD, read_record, write_record
from emslice.training.loop import Advance

Watch = Callable[[int, int], Advance]
"""Given steps done and steps in all, gives what is called after each step (`Loop.run`)."""


def start(recipe: str, config: TrainConfig, folder: str | Path, watch: Watch) -> Trained:
    """Train until ``config.steps`` in a new folder.

    Parameters
    ----------
    recipe : one of `RECIPES`

    Raises
    ------
    ConfigError
        Bad input; nothing was written.
    StoppedError
        SIGINT or SIGTERM came; `resume` goes on.
    """
    folder = Path(folder).resolve()
    if recipe not in RECIPES:
        raise ConfigError(f"recipe: {recipe!r} is none of {', '.join(RECIPES)}.")
    first = is_first_process()
    if first:
        _check_free(folder)
    ready = Ready.of(recipe, resolved(config))
    if first:
        write_record(folder, ready.record)
    return ready.train(folder, watch if first else _unseen)


def resume(folder: str | Path, watch: Watch) -> Trained:
    """Go on with a training that was stopped or died.

    Raises
    ------
    ConfigError
        No training is there, or its data or the networks that it begins with are others by now.
    """
    folder = Path(folder).resolve()
    record = read_record(folder)
    ready = Ready.of(record["recipe"], load_as(TrainConfig, base=record["config"]))
    for name in ("first_crops", "weights"):
        if ready.record[name] != record[name]:
            raise ConfigError(
                f"{folder}: its {name.replace('_', ' ')} are others now ({ready.record[name]}, "
                f"were {record[name]}): a file or a library has changed. Train anew."
            )
    return ready.train(folder, watch if is_first_process() else _unseen)


def resolved(config: TrainConfig) -> TrainConfig:
    """The configuration with absolute paths: a training can be resumed from anywhere."""
    tree: dict[str, Any] = config.model_dump()
    tree["data"]["root"] = str(Path(tree["data"]["root"] or ".").expanduser().resolve())
    for part, key in (
        ("student", "weights"), ("teacher", "weights"), ("teacher", "cache"), ("sam", "weights"),
        ("sam", "cache"),
    ):  # fmt: skip
        if tree[part] and tree[part][key]:
            tree[part][key] = str(Path(tree[part][key]).expanduser().resolve())
    return TrainConfig.model_validate(tree)


def is_first_process() -> bool:
    """Whether this is the process that was called; Fabric starts the others by the same command."""
    # Not fabric.is_global_zero: before launch() every process takes itself for the first.
    return not (getattr(rank_zero_only, "rank", 0) or 0)


def _check_free(folder: Path) -> None:
    """A folder is free if nothing is in it, or what a start left that died before its record."""
    if not folder.exists():
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {RECORD}
    if {name for name in names if name != CONFIG and not name.endswith(".partial")}:
        raise ConfigError(
            f"--out {folder}: already exists. Choose another name, remove it, or go on with "
            f"it: emslice train resume {folder}"
        )


def _unseen(done: int, steps: int) -> Advance:
    return lambda loss, best: None
