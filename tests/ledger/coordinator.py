"""Coordinators as processes of their own: ``python coordinator.py PATH write|race|wait [N]``."""

import os
import sys
from pathlib import Path

from emslice.errors import EmsliceError
from emslice.ledger.database import Ledger
from emslice.ledger.lease import RunLockedError
from emslice.ledger.records import Attempt


def attempt(n):
    return Attempt("s", "f", f"{n}_0_0", "w", "2025-01-02T03:04:05", 1.0, 1, "done", None, {"n": n})


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def write(ledger, first):
    """Record for ever; say so after each record."""
    ledger.lock("writer")
    n = int(first)
    while True:
        ledger.record(attempt(n))
        say(n)
        n += 1


def race(ledger, rounds):
    """Take the lease ``rounds`` times, the last time without giving it back."""
    folder = Path(ledger.database.place).parent
    left = int(rounds)
    while left:
        try:
            lease = ledger.lock("racer")
        except RunLockedError:
            continue
        (folder / "held").touch(exist_ok=False)
        with (folder / "numbers").open("a") as file:
            file.write(f"{lease.number}\n")
        (folder / "held").unlink()
        left -= 1
        if left:
            ledger.unlock()
    os._exit(0)


def wait(ledger):
    """Take the lease, say its number, and write when told to."""
    say(ledger.lock("sleeper").number)
    sys.stdin.readline()
    try:
        ledger.record(attempt(7))
    except EmsliceError as error:
        say(type(error).__name__, error)


if __name__ == "__main__":
    place, what, *arguments = sys.argv[1:]
    with Ledger(place) as opened:
        {"write": write, "race": race, "wait": wait}[what](opened, *arguments)
