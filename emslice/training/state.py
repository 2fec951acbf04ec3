"""The state of a training on disk: everything that decides the weights of the steps to come."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer

from emslice.errors import ConfigError
from emslice.ledger.files import write_aside

NAME = "state.pt"
LOCK = "lock"
LOCK_TRIES = 10


@dataclass
class State:
    """How far a training is."""

    step: int = 0
    """Steps done."""
    best: float = float("inf")
    """Least value that validation gave."""
    best_step: int | None = None
    sums: dict[str, float] = field(default_factory=dict)
    """Losses since the last row of the curves."""


def save_state(
    fabric: Fabric, path: Path, state: State, lesson: nn.Module, optimiser: Optimizer
) -> None:
    """Replace the file by the present state; after a crash it is the old one or the new."""
    content: dict[str, Any] = {
        "state": vars(state),
        "weights": trained_weights(lesson),
        "optimiser": optimiser.state_dict(),
        "random": torch.get_rng_state(),
    }
    if fabric.is_global_zero:
        with write_aside(path) as partial:
            torch.save(content, partial)
    fabric.barrier()


def load_state(path: Path, lesson: nn.Module, optimiser: Optimizer) -> State:
    """Put a saved state into a lesson and its optimiser."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    ours = {name: value.shape for name, value in trained_weights(lesson).items()}
    theirs = {name: value.shape for name, value in content["weights"].items()}
    wrong = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    if wrong:
        raise ConfigError(
            f"{path}: holds another training ({len(wrong)} weights do not fit, such as "
            f"{min(wrong)}). Resume with the emslice that began it."
        )
    lesson.load_state_dict(content["weights"], strict=False)  # frozen networks are not in it
    optimiser.load_state_dict(content["optimiser"])
    torch.set_rng_state(content["random"])
    return State(**content["state"])


def trained_weights(lesson: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of a lesson without those of its frozen networks."""
    frozen = tuple(
        f"{name}." for name, part in lesson.named_children() if getattr(part, "frozen", False)
    )
    return {k: v for k, v in lesson.state_dict().items() if not k.startswith(frozen)}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder alone, until the block or the process and those it forked end.

    Raises
    ------
    ConfigError
        Another process holds it.
    """
    with (folder / LOCK).open("a") as file:
        for left in reversed(range(LOCK_TRIES)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # one that only looks, such as ls, is gone at once
                if not left:
                    raise ConfigError(
                        f"{folder}: another process trains it. Wait for it, or stop it first."
                    ) from None
                time.sleep(0.05)
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process trains here; nothing is written."""
    try:
        with (folder / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
