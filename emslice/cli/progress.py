"""Bars for people, lines for scripts."""

from __future__ import annotations

import atexit
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from emslice.units import human_count


class RateColumn(ProgressColumn):
    """Voxels a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{human_count(speed)}voxel/s" if speed else "", style="cyan")


class Bars:
    """One bar a stage, on standard error; plain lines where that is no terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    @contextmanager
    def stage(self, name: str, voxels: int) -> Iterator[Callable[[int], None]]:
        """Show a stage; yields what to call with voxels done."""
        if not self._console.is_terminal:
            start = time.perf_counter()
            yield lambda n: None
            seconds = time.perf_counter() - start
            print_error(f"{name:12s} {seconds:8.1f} s  {human_count(voxels / seconds)}voxel/s")
            return
        columns = (
            TextColumn("{task.description:12s}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            bar = progress.add_task(name, total=voxels)
            yield lambda n: progress.advance(bar, n)


class JsonLines:
    """One JSON object a line on standard output: ``{"stage", "done", "total", "seconds"}``."""

    @contextmanager
    def stage(self, name: str, voxels: int) -> Iterator[Callable[[int], None]]:
        """Print when a stage begins, at most once a second within, and when it ends."""
        start = last = time.perf_counter()
        done = 0

        def line(n: int) -> None:
            seconds = round(time.perf_counter() - start, 3)
            content = {"stage": name, "done": n, "total": voxels, "seconds": seconds}
            with suppress(BrokenPipeError):  # who stops reading does not stop the run
                sys.stdout.write(json.dumps(content) + "\n")
                sys.stdout.flush()

        def advance(n: int) -> None:
            nonlocal done, last
            done += n
            if time.perf_counter() - last > 1 and done < voxels:
                last = time.perf_counter()
                line(done)

        line(0)
        yield advance
        line(voxels)


@contextmanager
def byte_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Bar of a copy, on a terminal; yields what to call with bytes done and bytes in all."""
    columns = (
        TextColumn("{task.description:12s}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def step_bar(done: int, steps: int, name: str = "train") -> Callable[[float, float], None]:
    """Bar of a training's steps, on a terminal; gives what to call with loss and best VOI."""
    console = Console(stderr=True)
    columns = (
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[scores]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    bar = progress.add_task("train", total=steps, completed=done, scores="")
    progress.start()
    atexit.register(progress.stop)

    def advance(loss: float, best: float) -> None:
        voi = f"  best VOI {best:.3f}" if math.isfinite(best) else ""
        progress.update(bar, advance=1, scores=f"loss {loss:.4g}{voi}")
        if progress.finished:
            progress.stop()

    return advance


def json_steps(done: int, steps: int) -> Callable[[float, float], None]:
    """Gives what prints ``{"step", "steps", "seconds", "loss"}``, at most once a second."""
    start = last = time.perf_counter()

    def advance(loss: float, best: float) -> None:
        nonlocal done, last
        done += 1
        if time.perf_counter() - last > 1 or done == steps:
            last = time.perf_counter()
            content = {"step": done, "steps": steps, "seconds": round(last - start, 3),
                       "loss": loss}  # fmt: skip
            with suppress(BrokenPipeError):
                sys.stdout.write(json.dumps(content) + "\n")
                sys.stdout.flush()

    return advance


def print_error(text: str) -> None:
    """A line on standard error, which leaves standard output to results."""
    sys.stderr.write(text + "\n")
