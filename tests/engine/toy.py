"""A stage that squares numbers into files, and misbehaves when told to."""

import os
import signal
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import numpy as np

from emslice.engine.executor import Outcome
from emslice.errors import UnfitWorkerError


@dataclass(frozen=True)
class Squares:
    folder: str
    n_tasks: int
    raising: frozenset[str] = frozenset()
    killing: frozenset[str] = frozenset()
    hungry: frozenset[str] = frozenset()
    starved: frozenset[str] = frozenset()
    seconds: float = 0.0
    wave: int = 0  # tasks of a wave; 0: all in one
    fingerprint: str = "f"
    resource: str = "CPU"
    name: str = field(default="squares")
    peak_bytes: int = 2**20
    seconds_per_task: float = 0.001
    log: bool = True

    def waves(self):
        size = self.wave or self.n_tasks or 1
        for first in range(0, self.n_tasks, size):
            yield (str(i) for i in range(first, min(first + size, self.n_tasks)))

    def prepare(self):
        for name in ("out", "tries", "opened", "closed"):
            Path(self.folder, name).mkdir(exist_ok=True)

    @contextmanager
    def open(self):
        note = f"{os.getpid()}-{uuid4().hex}"
        Path(self.folder, "opened", note).touch()
        yield self.process
        Path(self.folder, "closed", note).touch()

    def process(self, key):
        if not self.log:
            return {"square": int(key) ** 2}
        with open(Path(self.folder, "tries", key), "a") as tries:
            tries.write(f"{os.getpid()}\n")
        time.sleep(self.seconds)
        if key in self.raising:
            raise ValueError(f"task {key} is bad")
        if key in self.starved:
            np.empty(2**58)
        if key in self.killing:
            os.kill(os.getpid(), signal.SIGKILL)
        if key in self.hungry:
            hoard = [bytearray(os.urandom(2**20)) * 100 for _ in range(8)]
            time.sleep(20)
            del hoard
        part = Path(self.folder, "out", f"{key}.{uuid4().hex}")
        part.write_text(str(int(key) ** 2))
        part.rename(part.with_name(key))
        return {"square": int(key) ** 2}

    def outputs(self):
        return {p.name: int(p.read_text()) for p in Path(self.folder, "out").iterdir()}

    def tries(self, key):
        """Process ids, one for each attempt that was begun."""
        path = Path(self.folder, "tries", key)
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def pids(self):
        """Process ids that opened the stage, one for each time."""
        return [int(p.name.split("-")[0]) for p in Path(self.folder, "opened").iterdir()]

    def squares(self, without=()):
        """What the outputs should be."""
        return {str(i): i**2 for i in range(self.n_tasks) if str(i) not in without}


class Scripted:
    """An executor that knows beforehand how every attempt ends; notes what it was asked."""

    n_workers = 1

    def __init__(self, endings=None):
        self.endings = {key: list(results) for key, results in (endings or {}).items()}
        self.asked = []
        self.alone = []

    def run(self, stage, keys, alone=False):
        for key in keys:
            self.asked.append(key)
            if alone:
                self.alone.append(key)
            left = self.endings.get(key)
            result = left.pop(0) if left else "done"
            n = len(self.asked)
            error = f"Traceback\nValueError: {key} is bad" if result == "raised" else None
            worker = f"w{n}" if result == "lost" else "w"
            yield [Outcome(key, result, worker, "", 0.0, error=error)]

    def close(self):
        pass


@dataclass(frozen=True)
class Picky(Squares):
    """Squares that only some workers can make: all but the first that tries, or none."""

    picky: str = "first"

    @contextmanager
    def open(self):
        pid, unfit = str(os.getpid()), Path(self.folder, "unfit")
        with suppress(FileExistsError), unfit.open("x") as file:
            file.write(pid)
        if self.picky == "all" or unfit.read_text() in ("", pid):
            raise UnfitWorkerError(f"worker {pid} is of another kind")
        with super().open() as process:
            yield process


@dataclass(frozen=True)
class Crowd(Squares):
    """Squares whose tasks wait for one another, and note how many run at the same moment."""

    wanted: int = 2

    def prepare(self):
        super().prepare()
        for name in ("running", "counts"):
            Path(self.folder, name).mkdir()

    def process(self, key):
        here = Path(self.folder, "running", key)
        here.touch()
        deadline = time.monotonic() + 30
        while (n := len(os.listdir(here.parent))) < self.wanted and not self.seen():
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        time.sleep(0.05)  # one more would be seen
        n = max(n, len(os.listdir(here.parent)))
        Path(self.folder, "counts", f"{key}-{n}").touch()
        here.unlink()
        return super().process(key)

    def seen(self):
        """Numbers of tasks that ran at once, as each task saw them."""
        return [int(name.split("-")[1]) for name in os.listdir(Path(self.folder, "counts"))]
