"""The networks that a checkpoint may hold."""

from __future__ import annotations

from torch import nn

from emslice.models.mala import Mala
from emslice.models.student import Student
from emslice.models.superhuman import Superhuman

Network = Student | Superhuman | Mala
"""Each has a ``name``, a ``spec``, the published names of its weights and sizes told by them."""

VolumeNetwork = Superhuman | Mala
"""Those that see a volume at once, in windows."""

NETWORKS: tuple[type[Network], ...] = (Student, Superhuman, Mala)


def count_parameters(network: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(parameter.numel() for parameter in network.parameters())
