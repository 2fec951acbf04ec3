"""Trainings in a folder, and how far each is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emslice.errors import ConfigError
from emslice.recipes.records import CONFIG, LAST, RECORD, read_record
from emslice.training.metrics import read_metrics
from emslice.training.state import is_locked


@dataclass(frozen=True)
class RunRow:
    """A training."""

    run: str
    recipe: str
    step: int
    """Of the last row of its curves."""
    steps: int
    state: str
    """running, finished or stopped."""
    best_voi: float | None
    """Bits, of the step that was chosen."""
    best_step: int | None


def list_runs(folder: str | Path) -> list[RunRow]:
    """Every training in a folder or below, by path.

    Raises
    ------
    ConfigError
        No such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name the one that the trainings are in.")
    runs = [path.parent for path in sorted(folder.rglob(RECORD))]
    return [_row(run) for run in runs if (run / CONFIG).exists()]


def _row(run: Path) -> RunRow:
    record, rows = read_record(run), read_metrics(run)
    steps = int(record["config"]["steps"])
    step = max((int(row["step"]) for row in rows), default=0)
    chosen = [(float(r["value"]), int(r["step"])) for r in rows if r["name"] == "chosen"]
    best_voi, best_step = min(chosen, default=(None, None))
    state = "running" if is_locked(run) else "finished" if (run / LAST).exists() else "stopped"
    return RunRow(str(run), record["recipe"], step, steps, state, best_voi, best_step)
