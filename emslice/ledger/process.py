"""Who a process is, and whether it is gone, told on the machine that it runs on.

A pid alone is no identity: the kernel hands it out again. A pid with its start time is, within one
boot and one pid namespace.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process that others can find again."""

    host: str
    """Name for people. Two containers may share it, so it decides nothing."""
    machine: str
    """Boot and pid namespace: where ``pid`` means this process. Empty if the system has none."""
    pid: int
    started: int
    """Clock ticks between boot and birth; 0 if the system does not tell."""

    @property
    def is_gone(self) -> bool:
        """True only if it certainly runs no more.

        Elsewhere (another machine, another boot, another container) nothing is certain: False.
        """
        here = _machine()
        return bool(here) and self.machine == here and _started(self.pid) != self.started


def this_process() -> Process:
    """The process that asks."""
    pid = os.getpid()
    return Process(socket.gethostname(), _machine(), pid, _started(pid) or 0)


def _machine() -> str:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """Clock ticks between boot and birth; None if there is no such process, or only its zombie."""
    try:
        line = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # A command's name may hold spaces and brackets: fields count from the last bracket on.
    fields = line.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
