"""What an evaluation of checkpoints found: records of pairs, table, sweeps, picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from emslice.errors import StorageError
from emslice.ledger.files import write_atomic, write_table
from emslice.metrics import SweepRow, ThresholdScores
from emslice.viewer.bars import Bar, draw_bars

MEAN = "mean"
"""What stands for the volume in the rows of means."""

MEASURES = ("voi_split", "voi_merge", "voi", "arand")


@dataclass(frozen=True)
class PairScores:
    """A checkpoint on a volume, scored."""

    fingerprint: str
    checkpoint: str
    sha256: str
    volume: str
    roi: str
    voxels: int
    parameters: int
    mac_per_voxel: float
    predict_s: float
    """Raw to affinities; histograms for normalisation included."""

    segment_s: float
    """Affinities to the segmentation at the default threshold."""

    scores: ThresholdScores

    def row(self) -> dict[str, Any]:
        """A line of ``scores.csv``: at the default threshold, then at the best of the sweep."""
        facts = {f.name: getattr(self, f.name) for f in fields(self)[1:-1]}
        best = {f"best_{name}": value for name, value in asdict(self.scores.best).items()}
        return {**facts, **asdict(self.scores.default), **best}


@dataclass(frozen=True)
class Evaluation:
    """All pairs of a test set, and where their scores are."""

    folder: Path
    rows: tuple[dict[str, Any], ...]
    """Of pairs, volume by volume, then the means of each checkpoint if there are several
    volumes."""

    done: int
    """Pairs that were done now; the others had records."""

    @property
    def table(self) -> Path:
        """The rows as CSV."""
        return self.folder / "scores.csv"

    @property
    def picture(self) -> Path:
        """Bars of all checkpoints on all volumes."""
        return self.folder / "scores.png"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "rows": list(self.rows),
            "done": self.done,
            "table": str(self.table),
            "picture": str(self.picture),
            "sections": str(self.folder / "sections"),
        }


def save_pair(path: Path, found: PairScores) -> None:
    """Write a record; after a crash there is none, or the whole."""
    write_atomic(path, json.dumps(asdict(found), indent=1).encode())


def load_pair(path: Path, fingerprint: str) -> PairScores | None:
    """The record of a pair; None if there is none of this fingerprint.

    Raises
    ------
    StorageError
        A record that cannot be read: it is never half written.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        if content["fingerprint"] != fingerprint:
            return None
        rows = tuple(SweepRow(**row) for row in content["scores"]["rows"])
        content["scores"] = ThresholdScores(rows, content["scores"]["chosen"])
        return PairScores(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path}: is no record of scores ({error}); remove it.") from error


def write_results(folder: Path, pairs: Sequence[PairScores], done: int) -> Evaluation:
    """Table, sweeps and picture of all pairs."""
    rows = [pair.row() for pair in pairs]
    found = Evaluation(folder, (*rows, *mean_rows(rows)), done)
    write_table(found.table, found.rows)
    sweeps = [
        {"checkpoint": pair.checkpoint, "volume": pair.volume, **asdict(row)}
        for pair in pairs
        for row in pair.scores.rows
    ]
    write_table(folder / "sweeps.csv", sweeps)
    write_atomic(found.picture, draw_bars([_bar(row) for row in found.rows]))
    return found


def mean_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Unweighted means over volumes, a row for each checkpoint; none for a single volume.

    ``best_`` is the mean of the volumes' own best: thresholds may differ. Seconds and voxels are
    sums.
    """
    means = []
    for name in dict.fromkeys(row["checkpoint"] for row in rows):
        own = [row for row in rows if row["checkpoint"] == name]
        if len(own) < 2:
            continue
        mean = dict.fromkeys(own[0]) | {"checkpoint": name, "volume": MEAN}
        mean |= {key: own[0][key] for key in ("sha256", "parameters")}
        for key in (*MEASURES, *(f"best_{name}" for name in MEASURES), "mac_per_voxel"):
            mean[key] = sum(row[key] for row in own) / len(own)
        for key in ("voxels", "predict_s", "segment_s"):
            mean[key] = round(sum(row[key] for row in own), 3)
        means.append(mean)
    return means


def _bar(row: dict[str, Any]) -> Bar:
    return Bar(
        row["volume"], row["checkpoint"], row["voi_split"], row["voi_merge"], row["arand"],
        row["best_voi"], row["best_arand"],
    )  # fmt: skip
