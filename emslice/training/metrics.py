"""Curves of a training: rows of a CSV file, and TensorBoard if it is installed."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emslice.ledger.files import write_atomic

NAME = "metrics.csv"
COLUMNS = ("step", "split", "name", "value")


class Metrics:
    """Writer of ``metrics.csv`` in a run's folder, which goes on where a saved state was.

    Rows of steps after ``step`` are dropped: they will be written again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / NAME
        kept = [row for row in read_metrics(folder) if int(row["step"]) <= step]
        lines = [",".join(COLUMNS), *(",".join(row[c] for c in COLUMNS) for row in kept)]
        write_atomic(self._path, ("\n".join(lines) + "\n").encode())
        self._file = self._path.open("a", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._board = _tensorboard(folder / "tensorboard", step)

    def add(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Append a row for each value."""
        for name, value in values.items():
            self._writer.writerow((step, split, name, repr(float(value))))
            if self._board is not None:
                self._board.add_scalar(f"{split}/{name}", value, step)

    def flush(self) -> None:
        """Rows are on the disk after this."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """Whole rows of ``metrics.csv``; none if there is no file. A row cut off by a crash is left."""
    path = folder / NAME
    return [row for row in whole_rows(path) if row["value"]] if path.exists() else []


def whole_rows(path: Path) -> csv.DictReader[str]:
    """Reader of a table's rows but a last one whose line has no end, which is being written."""
    return csv.DictReader(path.read_text().rpartition("\n")[0].splitlines())


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
