"""What the outputs of a 3D network are."""

from __future__ import annotations

from emslice.errors import ConfigError
from emslice.geometry.neighborhood import NEIGHBORHOODS

HEADS = ("embedding", "affinity", "boundary")


def check_head(head: str, outputs: int) -> None:
    """Raise `ConfigError` unless a head can have so many outputs."""
    if head not in HEADS:
        raise ConfigError(f"head: {head!r} is none of {', '.join(HEADS)}.")
    if head == "affinity" and outputs not in NEIGHBORHOODS:
        known = ", ".join(map(str, NEIGHBORHOODS))
        raise ConfigError(f"outputs: no neighborhood has {outputs} channels; known: {known}.")
    if head == "boundary" and outputs != 1:
        raise ConfigError(f"outputs: a boundary is one channel, not {outputs}.")


def guess_head(outputs: int) -> str:
    """Head of published weights, which do not say: one channel is a boundary.

    As many as a neighborhood has are affinities, any other number is an embedding (the published
    ones have 16).
    """
    if outputs == 1:
        return "boundary"
    return "affinity" if outputs in NEIGHBORHOODS else "embedding"
