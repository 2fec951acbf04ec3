"""The loop that all recipes share: steps, curves, validation, states to go on from.

Lightning Fabric owns devices, precision and processes; the rate of a step, its crops and the
moments of validation are functions of its number, so a training that was resumed is the training
that was not interrupted, bit by bit on the same machine.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from emslice.errors import EmsliceError
from emslice.training import state as states
from emslice.training.metrics import Metrics
from emslice.training.schedule import Schedule
from emslice.training.state import State, save_state

Batch = dict[str, dict[str, Tensor]]
"""For each kind of crop: raw, labels, valid, labelled."""

Advance = Callable[[float, float], None]
"""Told the loss of a step and the best score so far."""

CHOSEN = "chosen"
"""The value of a validation that is to be small."""


@dataclass(frozen=True)
class LoopPlan:
    """When things happen."""

    steps: int
    save_every: int
    log_every: int
    validate_every: int
    validate_from: int
    clip: float | None


class Validation(Protocol):
    """Scores of the present weights on what was held out."""

    def __call__(self, step: int) -> Mapping[str, float]: ...

    def keep(self, step: int, scores: Mapping[str, float]) -> None:
        """Put the present weights aside as the best ones."""


class DivergedError(EmsliceError):
    """The loss is not finite."""

    exit_code = 1


class StoppedError(EmsliceError):
    """A training was asked to stop, and did after a step that is saved."""

    exit_code = 1


@dataclass
class Loop:
    """A training that is under way."""

    fabric: Fabric
    lesson: nn.Module
    """Its forward takes a batch and the step, and gives the parts of the loss."""
    optimiser: Optimizer
    ratios: list[float]
    """Rate of each group of parameters, as a multiple of the schedule's."""
    schedule: Schedule
    plan: LoopPlan
    folder: Path
    validation: Validation | None = None

    def __post_init__(self) -> None:
        self._path = self.folder / states.NAME
        self.state = State()
        self._called, self._optimiser = self.fabric.setup(self.lesson, self.optimiser)
        if self._path.exists():  # after setup, so that Adam's moments go where the weights are
            self.state = states.load_state(self._path, self.lesson, self.optimiser)
        self._seconds = {"wait": 0.0, "step": 0.0}

    def run(self, batches: Callable[[int], Iterable[Batch]], advance: Advance) -> State:
        """Do the steps that are left.

        Parameters
        ----------
        batches : callable
            Gives the batches from a step on.
        advance : callable
            Called after each step with its total loss and the best score so far.

        Raises
        ------
        StoppedError
            SIGINT or SIGTERM came; the state was saved.
        DivergedError
            The loss is not finite; the state is that of some steps before.
        """
        curves = Metrics(self.folder, self.state.step) if self.fabric.is_global_zero else None
        try:
            with asked_to_stop() as asked:
                for batch in self._timed(iter(batches(self.state.step))):
                    loss = self._step(batch, curves)
                    advance(loss, self.state.best)
                    if self._agreed(asked()):
                        self._save(curves)
                        raise StoppedError(
                            f"{self.folder}: stopped after step {self.state.step} of "
                            f"{self.plan.steps}, which is saved. Go on: emslice train resume "
                            f"{self.folder}"
                        )
        finally:
            if curves is not None:
                curves.close()
        return self.state

    def _agreed(self, asked: bool) -> bool:
        """What the first process was asked: all must stop after the same step."""
        return asked if self.fabric.world_size == 1 else self.fabric.broadcast(asked)

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; how long each was waited for, and worked on, is added up."""
        while self.state.step < self.plan.steps:
            begin = perf_counter()
            batch = next(batches)
            ready = perf_counter()
            self._seconds["wait"] += ready - begin
            yield self.fabric.to_device(batch)

    def _step(self, batch: Batch, curves: Metrics | None) -> float:
        """Do a step and what is due after it; the loss before it."""
        state, plan = self.state, self.plan
        rate = self.schedule.at(state.step)
        for group, ratio in zip(self._optimiser.param_groups, self.ratios, strict=True):
            group["lr"] = rate * ratio
        self.lesson.train()
        losses = self._descend(batch)
        self._add_up(losses)
        state.step += 1
        if state.step % plan.log_every == 0 or state.step == plan.steps:
            self._log(curves, rate)
        last = state.step == plan.steps
        due = state.step % plan.validate_every == 0 and state.step >= plan.validate_from
        if self.validation is not None and (due or last):
            self._validate(curves)
        elif state.step % plan.save_every == 0 or last:
            self._save(curves)
        return losses["total"]

    def _descend(self, batch: Batch) -> dict[str, float]:
        """One step down the gradient; the parts of the loss before it."""
        begin = perf_counter()
        losses: dict[str, Tensor] = self._called(batch, self.state.step)
        total = torch.stack(list(losses.values())).sum()
        self._optimiser.zero_grad()
        self.fabric.backward(total)
        if self.plan.clip is not None:
            self.fabric.clip_gradients(self._called, self._optimiser, max_norm=self.plan.clip)
        self._optimiser.step()
        parts = {**losses, "total": total}
        values = torch.stack(list(parts.values())).tolist()  # waits for the device, once
        self._seconds["step"] += perf_counter() - begin
        return dict(zip(parts, values, strict=True))

    def _add_up(self, losses: Mapping[str, float]) -> None:
        if not all(map(math.isfinite, losses.values())):
            raise DivergedError(
                f"{self.folder}: the loss of step {self.state.step} is not finite: {dict(losses)}. "
                f"Train anew with a lower optimiser.rate, or with optimiser.clip=1."
            )
        for name, value in {**losses, "steps": 1.0}.items():
            self.state.sums[name] = self.state.sums.get(name, 0.0) + value

    def _log(self, curves: Metrics | None, rate: float) -> None:
        n = self.state.sums.pop("steps")
        means = {name: total / n for name, total in self.state.sums.items()}
        self.state.sums.clear()
        if curves is None:
            return
        curves.add(self.state.step, "train", {**means, "learning_rate": rate})
        wait, busy = self._seconds["wait"], self._seconds["step"]
        if wait + busy:
            speed = {"wait_share": wait / (wait + busy), "steps_per_s": n / (wait + busy)}
            curves.add(self.state.step, "speed", speed)
        self._seconds = {"wait": 0.0, "step": 0.0}

    def _validate(self, curves: Metrics | None) -> None:
        if curves is not None and self.validation is not None:
            state = self.state
            self.lesson.eval()
            with torch.inference_mode():
                scores = self.validation(state.step)
            curves.add(state.step, "validate", scores)
            if scores[CHOSEN] < state.best:
                self.validation.keep(state.step, scores)
                state.best, state.best_step = scores[CHOSEN], state.step
        self._save(curves)  # what is best is known to the state, even if a replay scores otherwise

    def _save(self, curves: Metrics | None) -> None:
        if curves is not None:
            curves.flush()
        save_state(self.fabric, self._path, self.state, self.lesson, self.optimiser)


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Tell whether SIGINT or SIGTERM came, which end nothing meanwhile."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may listen
        return

    def note(number: int, _: Any) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
