"""``status.json``: how far a run is, for everyone who is not its coordinator.

The coordinator replaces the file as a whole, so a reader, on whatever host, sees one state or the
next and never locks, opens or disturbs the ledger. It is a picture, not the truth: after a crash
it shows the state of its time, which `is_stale` tells.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

from emslice.errors import ConfigError, StorageError
from emslice.ledger.files import write_atomic

FILE = "status.json"
TRIES = 5
State = Literal["planned", "running", "done", "failed", "holes"]
"""``holes``: all done but for tasks in quarantine, which read as masked."""


@dataclass(frozen=True)
class StageStatus:
    """Tasks of one stage."""

    name: str
    total: int
    done: int = 0
    failed: int = 0
    running: int = 0


@dataclass(frozen=True)
class Coordinator:
    """The process that writes the status."""

    host: str
    pid: int


@dataclass(frozen=True)
class RunStatus:
    """How far a run is."""

    state: State
    stages: tuple[StageStatus, ...]
    updated: str
    """UTC, ISO 8601."""
    coordinator: Coordinator
    blocks_per_s: float = 0.0
    eta_s: float | None = None
    """Until the end of the run; None if there is nothing yet to tell it from."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self) | {"stages": [asdict(stage) for stage in self.stages]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `as_dict`; what a later emslice may have added is left out."""
        own = _known(cls, values)
        own["stages"] = tuple(StageStatus(**_known(StageStatus, s)) for s in own["stages"])
        own["coordinator"] = Coordinator(**_known(Coordinator, own["coordinator"]))
        return cls(**own)


def utc(at: float) -> str:
    """Seconds since 1970 as UTC, ISO 8601.

    >>> utc(0.5)
    '1970-01-01T00:00:00.500+00:00'
    """
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def write_status(folder: Path, status: RunStatus) -> None:
    """Replace the status of a run; a crash leaves the old one or the new one."""
    text = json.dumps(status.as_dict(), indent=1)
    write_atomic(folder / FILE, text.encode())


def read_status(folder: Path) -> RunStatus:
    """Newest status of a run.

    Raises
    ------
    ConfigError
        The folder is no run, or was planned by an emslice that wrote no status.
    """
    error: Exception | None = None
    for _ in range(TRIES):
        try:
            return RunStatus.from_dict(json.loads((folder / FILE).read_bytes()))
        except (FileNotFoundError, NotADirectoryError) as missing:
            found = "holds no status.json" if folder.is_dir() else "does not exist"
            raise ConfigError(f"{folder} {found}: give the folder of a run.") from missing
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as broken:
            # On network file systems a file that is replaced can go stale under its reader.
            error = broken
    raise StorageError(f"{folder / FILE}: not readable in {TRIES} tries: {error}") from error


def is_stale(status: RunStatus, now: float, after_s: float = 60.0) -> bool:
    """Whether a run that says it is running has not said so for ``after_s``: nobody works on it.

    ``now`` in seconds since 1970.
    """
    age_s = now - datetime.fromisoformat(status.updated).timestamp()
    return status.state == "running" and age_s > after_s


class Rate:
    """Tasks per second from recent completions, and the time that the rest will take.

    Tasks end in batches, so a plain window would jump whenever a batch enters or leaves it. This
    one doubles from ``window_s`` until it spans four of the longest pauses in it; it is counted
    from one completion to another; and the pause since the last one counts only as far as it
    exceeds the longest seen. So batches give a steady rate, and a stall a falling one.

    All times are seconds of one clock that does not jump, `time.monotonic`.

    >>> rate = Rate(start=0.0)
    >>> for at in (10.0, 20.0, 30.0):
    ...     rate.add(32, at)
    >>> rate.per_s(35.0), rate.eta_s(left=64, now=35.0)
    (3.2, 20.0)
    """

    def __init__(self, start: float, window_s: float = 300.0, max_moments: int = 4096) -> None:
        self._window_s = window_s
        self._max_moments = max_moments
        self._times = [start]
        self._totals = [0]  # tasks done until then

    def add(self, n_tasks: int, now: float) -> None:
        """Count tasks that have just been completed."""
        now = max(now, self._times[-1])
        total = self._totals[-1] + n_tasks
        if len(self._times) > 1 and now - self._times[-2] < self._window_s / 300:
            self._times[-1], self._totals[-1] = now, total  # one moment, as a window sees it
            return
        self._times.append(now)
        self._totals.append(total)
        if len(self._times) > self._max_moments:
            del self._times[: self._max_moments // 2], self._totals[: self._max_moments // 2]

    def per_s(self, now: float) -> float:
        """Tasks per second; 0 before the first completion."""
        window_s = self._window_s
        while True:
            first = max(0, bisect_right(self._times, now - window_s) - 1)
            times = self._times[first:]
            pause = max((b - a for a, b in pairwise(times)), default=0.0)
            if first == 0 or window_s >= 4 * max(pause, now - times[-1]):
                break
            window_s *= 2
        span = max(times[-1], now - pause) - times[0]
        return (self._totals[-1] - self._totals[first]) / span if span > 1e-6 else 0.0

    def eta_s(self, left: int, now: float) -> float | None:
        """Seconds until ``left`` more tasks are done; None while the rate is 0."""
        if left == 0:
            return 0.0
        rate = self.per_s(now)
        return left / rate if rate > 0 else None


def _known(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if name in names}
