"""The rate of each step, as a function of the step alone: nothing to store, nothing to restore."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How fast weights move."""

    kind: str
    """constant, poly or one_cycle."""
    rate: float
    end_rate: float
    steps: int
    warmup: int
    power: float

    def at(self, step: int) -> float:
        """Rate of a step, counted from 0.

        It grows in equal parts over ``warmup`` steps. Then, with ``u`` the share of the rest that
        is done: poly is ``(rate - end) (1 - u)**power + end`` (the published one), one_cycle half
        a cosine from ``rate`` to ``end_rate``.
        """
        if step < self.warmup:
            return self.rate * (step + 1) / (self.warmup + 1)
        if self.kind == "constant":
            return self.rate
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        left = (
            (1 - done) ** self.power if self.kind == "poly" else (1 + math.cos(math.pi * done)) / 2
        )
        return (self.rate - self.end_rate) * left + self.end_rate
